import { describe, expect, test } from 'vitest';
import { DARK_PALETTES, LIGHT_PALETTES } from '../graph/palette';
import { contrast, inkOn, luminance, ramp, STEPS } from './ramp';
import { isWorse, scaleOf, scaleOfShares, stepOf } from './scale';

const RAMPS = (['quality', 'amount'] as const).flatMap((kind) => [[kind, false] as const, [kind, true] as const]);

describe('a ramp', () => {
  test.each(RAMPS)('of %s has labels that can be read on every step (dark: %s)', (kind, dark) => {
    for (const colour of ramp(kind, dark)) expect(contrast(colour, inkOn(colour)), colour).toBeGreaterThanOrEqual(4.5);
  });

  test.each(RAMPS)('of %s has ends that are far apart (dark: %s)', (kind, dark) => {
    expect(ramp(kind, dark)).toHaveLength(STEPS);
    expect(new Set(ramp(kind, dark)).size).toBe(STEPS);
  });

  test.each([false, true])('of amounts is ever fainter, in grey too (dark: %s)', (dark) => {
    const distances = ramp('amount', dark).map((colour) => (dark ? luminance(colour) : -luminance(colour)));
    expect(distances).toEqual([...distances].sort((a, b) => b - a));
  });

  test.each([LIGHT_PALETTES, DARK_PALETTES].flatMap(Object.values))(
    'no step looks like a box without a value',
    (palette) => {
      for (const colour of palette.ramp) expect(colour).not.toBe(palette.hollow);
      for (const background of [palette.background, ...palette.container]) {
        expect(contrast(palette.heading, background)).toBeGreaterThanOrEqual(4.5);
        expect(contrast(palette.selection, background)).toBeGreaterThanOrEqual(3);
      }
      expect(contrast(palette.hollowInk, palette.hollow)).toBeGreaterThanOrEqual(4.5);
      expect(contrast(palette.portalInk, palette.portal)).toBeGreaterThanOrEqual(4.5);
    },
  );

  test('contrast is that of WCAG', () => {
    expect(contrast('#000000', '#ffffff')).toBeCloseTo(21);
    expect(contrast('#777777', '#ffffff')).toBeCloseTo(4.48, 2);
  });
});

describe('a scale', () => {
  const decibels = { worst: 0, best: 40, log: false };

  test('gives its ends to what lies beyond them', () => {
    expect(stepOf(decibels, -5)).toBe(0);
    expect(stepOf(decibels, -Infinity)).toBe(0);
    expect(stepOf(decibels, Infinity)).toBe(STEPS - 1);
    expect(stepOf(decibels, NaN)).toBe(-1);
  });

  test('may run on logarithms, and the other way', () => {
    const mse = { worst: 1, best: 1e-6, log: true };
    expect(stepOf(mse, 1)).toBe(0);
    expect(stepOf(mse, 1e-3)).toBe(Math.round((STEPS - 1) / 2));
    expect(stepOf(mse, 0)).toBe(STEPS - 1);
  });

  test('made from values leaves out wild ones', () => {
    const values = [...Array.from({ length: 99 }, (_, i) => i + 1), 1e9];
    const { worst, best } = scaleOf(values, 'low', false);
    expect(worst).toBeLessThan(100);
    expect(best).toBeLessThan(5);
  });

  test('of shares spans from nothing to the largest', () => {
    const shares = scaleOfShares([0.01, NaN, 0.6, 0]);
    expect([stepOf(shares, 0.6), stepOf(shares, 0), stepOf(shares, NaN)]).toEqual([0, STEPS - 1, -1]);
    expect(stepOf(scaleOfShares([NaN, 0]), 0)).toBe(STEPS - 1);
  });

  test('of no values still has steps', () => {
    expect(stepOf(scaleOf([NaN], 'high', false), 3)).toBeGreaterThanOrEqual(0);
  });

  test('knows what is worse; no value never is', () => {
    expect(isWorse('high', 1, 2)).toBe(true);
    expect(isWorse('low', 1, 2)).toBe(false);
    expect(isWorse('high', NaN, 2)).toBe(false);
    expect(isWorse('high', 2, NaN)).toBe(true);
  });
});
