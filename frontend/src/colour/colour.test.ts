import { describe, expect, test } from 'vitest';
import { DARK_PALETTE, LIGHT_PALETTE } from '../graph/palette';
import { contrast, inkOn, ramp, STEPS } from './ramp';
import { isWorse, scaleOf, stepOf } from './scale';

describe('the ramp', () => {
  test.each([false, true])('has labels that can be read on every step (dark: %s)', (dark) => {
    for (const colour of ramp(dark)) expect(contrast(colour, inkOn(colour)), colour).toBeGreaterThanOrEqual(4.5);
  });

  test.each([false, true])('has ends that are far apart (dark: %s)', (dark) => {
    expect(ramp(dark)).toHaveLength(STEPS);
    expect(new Set(ramp(dark)).size).toBe(STEPS);
  });

  test.each([LIGHT_PALETTE, DARK_PALETTE])('no step looks like a box without a value', (palette) => {
    for (const colour of palette.ramp) expect(colour).not.toBe(palette.hollow);
    for (const background of [palette.background, ...palette.container]) {
      expect(contrast(palette.heading, background)).toBeGreaterThanOrEqual(4.5);
      expect(contrast(palette.selection, background)).toBeGreaterThanOrEqual(3);
    }
    expect(contrast(palette.hollowInk, palette.hollow)).toBeGreaterThanOrEqual(4.5);
    expect(contrast(palette.portalInk, palette.portal)).toBeGreaterThanOrEqual(4.5);
  });

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
