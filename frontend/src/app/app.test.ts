import { describe, expect, test } from 'vitest';
import { sharedScope, withoutScope } from './names';
import { formatRoute, parseRoute, type Route } from './route';
import {
  ageText,
  alignedText,
  bytesText,
  decibelText,
  durationText,
  fileName,
  numberText,
  percentText,
  shareText,
} from './text';

describe('an address', () => {
  const routes: Route[] = [
    { page: 'runs' },
    { page: 'compare', a: 'first run', b: 'second/run?&#' },
    {
      page: 'run',
      run: 'résumé 100 %',
      view: 'graph',
      state: { op: '/model.0/conv/Conv', row: 3, side: 'quantized', role: 'weight', metric: 'mse' },
    },
    { page: 'run', run: 'a', view: 'weights', state: {} },
    { page: 'run', run: 'a', view: 'profile', state: { op: '/conv' } },
    { page: 'run', run: 'a', view: 'graph', state: { group: 0 } },
    { page: 'run', run: 'a', view: 'graph', state: { op: 'F0::anon;x+y=z & <b>' } },
  ];

  test.each(routes)('names the route %j', (route) => {
    expect(parseRoute(formatRoute(route))).toEqual(route);
  });

  test('of the wrong kind leads to something all the same', () => {
    expect(parseRoute('')).toEqual({ page: 'runs' });
    expect(parseRoute('#/nowhere/else')).toEqual({ page: 'runs' });
    expect(parseRoute('#/compare?a=1')).toEqual({ page: 'runs' });
    expect(parseRoute('#/runs/a/unknown?row=x&side=left')).toEqual({
      page: 'run',
      run: 'a',
      view: 'overview',
      state: {},
    });
    expect(parseRoute('#/runs/%E0%A4%A/graph')).toMatchObject({ page: 'run', view: 'graph' });
  });
});

describe('words for numbers', () => {
  test('of one column have the same decimals', () => {
    const text = alignedText(0.0703);
    expect([0.0703, 0.00991, 1e-6, 0, NaN, -0.002].map(text)).toEqual([
      '0.0703',
      '0.0099',
      '< 0.0001',
      '0',
      '–',
      '−0.0020',
    ]);
    expect(alignedText(25)(3.14159)).toBe('3.1');
    expect(alignedText(1e-12)(1.5e-12)).toBe('1.5e−12');
    expect(alignedText(-Infinity)(3)).toBe('3');
  });

  test('keep four digits and say what is missing', () => {
    expect(numberText(0.012345)).toBe('0.01235');
    expect(numberText(1.5e-9)).toBe('1.50e−9');
    expect(numberText(-12345678)).toBe('−1.23e7');
    expect(numberText(0)).toBe('0');
    expect(numberText(NaN)).toBe('–');
    expect(numberText(-Infinity)).toBe('−∞');
  });

  test('have units', () => {
    expect(decibelText(-0.04)).toBe('−0.0');
    expect(percentText(0.5)).toBe('50.0 %');
    expect(percentText(0.00012)).toBe('0.012 %');
    expect(percentText(1e-7)).toBe('< 0.001 %');
    expect([0.3456, 0.02, 0.0001, 0, NaN].map(shareText)).toEqual(['34.6 %', '2.0 %', '< 0.1 %', '0.0 %', '–']);
    expect(bytesText(12_345_678)).toBe('12.3 MB');
    expect(bytesText(999)).toBe('999 B');
    expect(durationText(3.21)).toBe('3.2 s');
    expect(durationText(125)).toBe('2 min 5 s');
    expect(ageText('2026-01-01T00:00:00Z', Date.parse('2026-01-03T12:00:00Z'))).toBe('2 days ago');
    expect(ageText('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:00:20Z'))).toBe('just now');
    expect(fileName('C:\\models\\a.onnx')).toBe('a.onnx');
  });
});

describe('the scope that names share', () => {
  test('is the longest around nearly all of them', () => {
    const names = ['m/body/a/Conv', 'm/body/b/Conv', 'm/body/b/Add', 'm/body/c/Relu', 'output'];
    expect(sharedScope(names)).toBe('m/body/');
    expect(names.map((name) => withoutScope(name, 'm/body/')).slice(2)).toEqual(['…/b/Add', '…/c/Relu', 'output']);
  });

  test('is none where names differ from the start, and a first slash is no module', () => {
    expect(sharedScope(['/a/Conv', '/b/Conv'])).toBe('');
    expect(sharedScope(['/model/a/Conv', '/model/b/Conv'])).toBe('/model/');
    expect(sharedScope(['a/Conv'])).toBe('');
    expect(sharedScope([])).toBe('');
    expect(withoutScope('/a/Conv', '')).toBe('/a/Conv');
  });
});
