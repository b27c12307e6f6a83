import { describe, expect, test } from 'vitest';
import type { CountTable } from '../api/figures';
import { boxOfGroup } from '../graph/ids';
import { valuesOf } from '../graph/graph-values';
import { GraphModel } from '../graph/model';
import { GraphValues } from '../graph/values';
import { METRICS, OUTPUT_ERROR, badThreshold, metricOf } from '../metrics/metrics';
import { place, ticks, valueAt } from './axis';
import { stacked } from './budget';
import { type ChannelData, orderChannels } from './channels';
import { densityBitmap } from './density';
import { depthTable } from './depth';
import { halved, withoutComb } from './histogram';
import { svgText } from './svg-pen';
import { RowTable } from '../api/rows';
import type { RowColumns } from '../api/types';

test('ticks are round and inside', () => {
  expect(ticks(0, 1, 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
  expect(ticks(-0.31, 0.29, 4)).toEqual([-0.2, 0, 0.2]);
  expect(ticks(1, 1, 5)).toEqual([]);
  expect(ticks(0, Infinity, 5)).toEqual([]);
});

test('an axis leads there and back', () => {
  const axis = { low: -2, high: 6, from: 50, to: 450 };
  expect(place(axis, 0)).toBe(150);
  expect(valueAt(axis, place(axis, 1.25))).toBeCloseTo(1.25);
});

describe('a histogram', () => {
  const comb = {
    first: 0,
    width: 1,
    reference: new Array<number>(256).fill(4),
    quantized: Array.from({ length: 256 }, (_, i): number => (i % 3 ? 0 : 12)),
  };

  test('keeps all values when its bins are joined', () => {
    const { width, reference, quantized } = halved({ first: 0, width: 1, reference: [1, 2, 3], quantized: [3, 0, 3] });
    expect([width, reference, quantized]).toEqual([2, [3, 3], [3, 3]]);
  });

  test('gets bins that each hold a code', () => {
    const { reference, quantized } = withoutComb(comb, NaN);
    expect(quantized.filter((count) => count === 0)).toEqual([]);
    expect(reference.reduce((a, b) => a + b)).toBe(1024);
    expect(quantized.reduce((a, b) => a + b)).toBe(comb.quantized.reduce((a, b) => a + b));
  });

  test('of few codes does not become one bar', () => {
    expect(withoutComb(comb, 3).width).toBe(8);
    const binary = { ...comb, quantized: comb.quantized.map((_, i) => (i === 0 ? 1024 : 0)) };
    expect(withoutComb(binary, NaN).reference.length).toBeGreaterThanOrEqual(32);
  });
});

test('parts of a budget stand end to end, those that cancel others left of zero', () => {
  expect(stacked([0.5, -0.2, 0.7, NaN, -0.1])).toEqual([
    { from: 0, to: 0.5 },
    { from: -0.2, to: 0 },
    { from: 0.5, to: 1.2 },
    { from: 0, to: 0 },
    { from: expect.closeTo(-0.3), to: expect.closeTo(-0.2) },
  ]);
});

function channels(count: number, bins: number): ChannelData {
  const counts: CountTable = { rows: count, columns: bins, values: new Float64Array(count * bins) };
  const column = (): Float64Array => new Float64Array(count);
  const both = () => ({ reference: column(), quantized: column() });
  return {
    count,
    bins,
    first: 0,
    width: 1,
    counts: { reference: counts, quantized: null },
    minimum: both(),
    maximum: both(),
    mean: both(),
    std: both(),
    mse: column(),
    sqnrDb: column(),
  };
}

describe('channels', () => {
  test('are ordered by range, by error and by index', () => {
    const data = channels(4, 1);
    data.maximum.reference.set([1, 5, NaN, 3]);
    data.sqnrDb.set([20, 30, 10, NaN]);
    expect([...orderChannels(data, 'range')]).toEqual([1, 3, 0, 2]);
    expect([...orderChannels(data, 'error')]).toEqual([2, 0, 1, 3]);
    expect([...orderChannels(data, 'index')]).toEqual([0, 1, 2, 3]);
  });

  test('more than there are lines still show the one outlier', () => {
    const data = channels(2048, 8);
    data.counts.reference.values[1500 * 8 + 7] = 1000;
    const { pixels, height } = densityBitmap(data, data.counts.reference, orderChannels(data, 'index'), 300, false);
    expect(height).toBe(300);
    const last = Array.from({ length: 300 }, (_, y) => pixels[y * 8 + 7]);
    expect(new Set(last).size).toBe(2);
    expect(last.filter((pixel) => pixel !== last[0])).toHaveLength(1);
  });
});

describe('a depth map', () => {
  const groups = ['layers 0–1', 'layers.0', 'attn', 'layers.1', 'attn'];
  const model = new GraphModel({
    grouping: 'scopes',
    ops: ['MatMul'],
    nodes: {
      name: ['embed', 'q0', 'q0b', 'q1'],
      label: ['embed', 'q_proj', 'q_proj_1', 'q_proj'],
      op: [0, 0, 0, 0],
      group: [-1, 2, 2, 4],
    },
    groups: { name: groups, parent: [-1, 0, 1, 0, 3] },
    edges: { src: [0, 1, 2], dst: [1, 2, 3], tensor: ['a', 'b', 'c'] },
  });

  const valued = (of: GraphModel, ...numbers: number[]): GraphValues =>
    new GraphValues(of, Float64Array.from(numbers), { worst: 0, best: 40, log: false }, 'high', String);

  test('has a layer per numbered scope, a role per place in it, and the worst op of each', () => {
    const values = valued(model, 40, 20, 10, 30);
    const { layers, roles, nodes } = depthTable(model, values);
    expect(layers).toEqual(['embed', 'layers.0', 'layers.1']);
    expect(roles).toEqual(['embed', 'attn/q_proj']);
    expect([...nodes]).toEqual([0, -1, -1, -1, 2, 3]);
  });

  test('of a model without names has a layer per block and a role per type of op', () => {
    const blocks = ['block 0 · Conv×3 Mul', 'block 1 · Conv'];
    const cut = new GraphModel({
      ...model.columns,
      grouping: 'cuts',
      nodes: { ...model.columns.nodes, group: [0, 0, 1, 1] },
      groups: { name: blocks, parent: [-1, -1] },
    });
    const values = valued(cut, 9, 8, 7, 6);
    const { layers, roles, nodes } = depthTable(cut, values);
    expect([layers, roles, [...nodes]]).toEqual([blocks, ['MatMul'], [1, 3]]);
  });

  test('gives the layers of Keras, which are numbered alike, one role', () => {
    const keras = new GraphModel({
      ...model.columns,
      nodes: {
        ...model.columns.nodes,
        label: ['conv2d_1', 'conv2d_1_2', 'block_3_conv2d', 'block_4_conv2d'],
        group: [-1, -1, -1, -1],
      },
      groups: { name: [], parent: [] },
    });
    const values = valued(keras, 9, 8, 7, 6);
    expect(depthTable(keras, values).roles).toEqual(['conv2d', 'block_·_conv2d']);
  });

  test('leaves out ops without a value', () => {
    const values = valued(model, NaN, NaN, NaN, 30);
    expect(depthTable(model, values).layers).toEqual(['layers.1']);
  });
});

describe('metrics', () => {
  const table = new RowTable({
    index: [0, 1, 2],
    node: [0, 1, 1],
    quantized_node: [1, 0, 0],
    role: ['activation', 'activation', 'activation'],
    mse: [0.5, 0, 2],
    reference_min: [-1, 0, null],
    reference_max: [3, 2, 4],
    budget_weight: [0.25, 0, 1],
    output_error_share: [0.5, 0.125, 0.25],
    sqnr_db: [12, 30, 20],
  } as unknown as RowColumns);

  test('have one name each', () => {
    expect(new Set(METRICS.map(({ id }) => id)).size).toBe(METRICS.length);
    expect(metricOf('unknown')).toBe(METRICS[0]);
  });

  test('may be made of several columns', () => {
    expect([...metricOf('range').values(table)]).toEqual([4, 2, NaN]);
    expect([...metricOf('budget_weight').values(table)]).toEqual([0.5, NaN, 0.5]);
  });

  test('of an op with several rows are its worst', () => {
    const model = new GraphModel({
      grouping: 'none',
      ops: ['Add'],
      nodes: { name: ['a', 'b'], label: ['a', 'b'], op: [0, 0], group: [-1, -1] },
      groups: { name: [], parent: [] },
      edges: { src: [], dst: [], tensor: [] },
    });
    expect([...valuesOf(model, table, metricOf('sqnr_db'), 'activation', 'reference').ofNode]).toEqual([12, 20]);
    expect([...valuesOf(model, table, metricOf('sqnr_db'), 'activation', 'quantized').ofNode]).toEqual([20, 12]);
    expect([...valuesOf(model, table, metricOf('sqnr_db'), 'weight', 'reference').ofNode]).toEqual([NaN, NaN]);
  });

  test('that are parts of a whole add up, in an op with several rows and in a group', () => {
    const model = new GraphModel({
      grouping: 'scopes',
      ops: ['Split'],
      nodes: { name: ['a', 'b', 'c'], label: ['a', 'b', 'c'], op: [0, 0, 0], group: [0, 0, 0] },
      groups: { name: ['block'], parent: [-1] },
      edges: { src: [], dst: [], tensor: [] },
    });
    const values = valuesOf(model, table, OUTPUT_ERROR, 'activation', 'reference');
    expect([...values.ofNode]).toEqual([0.5, 0.375, NaN]);
    expect([values.of(boxOfGroup(0)), values.words(0)]).toEqual([0.875, '87.5 % in all']);
  });

  test('call the worst tenth bad where nothing is worse than the middle', () => {
    const rows = Array.from({ length: 101 }, (_, i) => i);
    const good = Float64Array.from(rows, (i) => 50 + i);
    const scale = { worst: 0, best: 40, log: false };
    expect(badThreshold(metricOf('sqnr_db'), scale, good, rows)).toBe(60);
    expect(badThreshold(metricOf('sqnr_db'), scale, Float64Array.of(5, 50), [0, 1])).toBe(20);
    expect(badThreshold(metricOf('mse'), { worst: 1, best: 1e-4, log: true }, Float64Array.of(0.5), [0])).toBe(0.01);
  });
});

test('an SVG holds no markup of a name', () => {
  const text = svgText({ width: 10, height: 10 }, (pen) => pen.text('<script>"&', { x: 1, y: 2 }, { colour: 'red' }));
  expect(text).toContain('&lt;script&gt;');
  expect(text).not.toContain('<script');
});
