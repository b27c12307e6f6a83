import { describe, expect, test } from 'vitest';
import { RowTable } from '../api/rows';
import type { OpTimings, Profile, RowColumns } from '../api/types';
import { boxOfGroup } from '../graph/ids';
import { GraphModel } from '../graph/model';
import { tableCsv } from '../table/csv';
import { FIRST_COLUMNS, profileColumns } from './profile-columns';
import { timingMetrics, timingValues } from './profile-metrics';
import { ProfileTable } from './profile-table';
import { chartedRows, speedupReach, sumFacts, timeByType } from './times';
import { largeText, microsecondsText, speedLine, speedTone, speedupText, timeText } from './words';

type Figure = OpTimings['speedup'][number];

const same = <T>(length: number, value: T): T[] => new Array<T>(length).fill(value);

/** Two ops of 10 and 40 µs that become 20 and 10 µs, and one that the quantized model alone runs. */
function timings(more: Partial<OpTimings> = {}): OpTimings {
  const side = (us: Figure[], added: Figure[], total: Figure[]) => ({ us, added_us: added, total_us: total });
  const sides = {
    reference: side([10, 40, null], [0, 0, null], [10, 40, null]),
    quantized: side([8, 10, 1], [12, 0, 0], [20, 10, 1]),
  };
  const columns: Record<string, unknown> = {};
  for (const [name, times] of Object.entries(sides)) {
    for (const [key, values] of Object.entries(times)) columns[`${name}_${key}`] = values;
    for (const key of ['share', 'cpu_us', 'calls', 'defined', 'bytes_moved', 'peak_share', 'bandwidth_share'])
      columns[`${name}_${key}`] = same<Figure>(3, 1);
    columns[`${name}_accelerator_us`] = same<Figure>(3, 0);
    columns[`${name}_dtype`] = same(3, 'uint8');
  }
  return {
    name: ['a', 'b', 'c'],
    op_type: ['Conv', 'MatMul', 'Conv'],
    scope: ['', '', ''],
    ops: [['a', 'relu'], ['b'], ['c']],
    multiply_adds: [2_000_000, 0, 0],
    speedup: [0.5, 4, null],
    ...columns,
    ...more,
  } as OpTimings;
}

function profile(more: Partial<Profile> = {}): Profile {
  const model = (latency: number, kernels: number) => ({
    path: null,
    bytes: 4,
    load_ms: 1,
    peak_memory_bytes: null,
    sums: { latency_us: latency, profiled_us: 1.5 * latency, kernels_us: kernels, attributed: 1 },
  });
  return {
    batch: 1,
    threads: 1,
    data: '',
    reference: model(50, 52),
    quantized: model(40, 31),
    latencies: [],
    ops: timings(),
    added: [
      {
        op_type: 'QuantizeLinear',
        role: 'quantize',
        reference_us: 0,
        quantized_us: 12,
        reference_count: 0,
        quantized_count: 1,
      },
    ],
    peak: { float_multiply_adds: 1, int8_multiply_adds: 1, signed_multiply_adds: 1, bytes_per_second: 1 },
    reasons: [],
    notes: [],
    environment: {},
    run: '',
    optimized: true,
    optimization: '',
    rewritten: null,
    ...more,
  };
}

const table = new ProfileTable(profile());

describe('a speed-up in words', () => {
  test('names the side that is ahead, and its interval that way round', () => {
    expect(speedLine({ speedup: 1.42, low: 1.38, high: 1.47 })).toBe('1.42× faster (1.38 to 1.47)');
    expect(speedLine({ speedup: 0.5, low: 0.4, high: 0.625 })).toBe('2.00× slower (1.60 to 2.50)');
  });

  test('is none where the interval holds no change, or nothing was compared', () => {
    expect(speedLine({ speedup: 1.01, low: 0.98, high: 1.05 })).toBe('about as fast, 1.01× (0.98 to 1.05)');
    expect(speedLine({ speedup: null, low: null, high: null })).toBe('not compared');
    expect(speedLine({ speedup: 3, low: null, high: null })).toBe('3.00× faster');
    expect(speedTone({ speedup: 0.9, low: 0.85, high: 0.95 })).toBe('slower');
  });
});

test('times and large numbers have the unit that suits them', () => {
  expect([0.5, 12.34, 999, 1234, 2.5e6, NaN].map(timeText)).toEqual([
    '0.50 µs',
    '12.3 µs',
    '999 µs',
    '1.23 ms',
    '2.50 s',
    '–',
  ]);
  expect([1234.56, 0.01, 0, NaN].map(microsecondsText)).toEqual(['1,234.6', '< 0.1', '0.0', '–']);
  expect([236_100_000, 1500, 12].map(largeText)).toEqual(['236 M', '1.5 k', '12']);
  expect([0.163, 14.23, Infinity].map(speedupText)).toEqual(['0.16×', '14.2×', '∞']);
});

describe('the ops of a profile', () => {
  test('are found by any op that runs as one with them', () => {
    expect([table.rowOf('a'), table.rowOf('relu'), table.rowOf('nobody'), table.rowOf(undefined)]).toEqual([
      0,
      0,
      null,
      null,
    ]);
  });

  test('are charted by time, or as they are chosen', () => {
    expect(chartedRows(table, null)).toEqual([0, 1, 2]);
    expect(chartedRows(table, new Set([2, 1]))).toEqual([1, 2]);
    expect(chartedRows(table, new Set())).toEqual([]);
  });

  test('have the reference’s times where there is no other model', () => {
    const alone = new ProfileTable(profile({ quantized: null }));
    expect(chartedRows(alone, null)).toEqual([1, 0, 2]);
    const columns = profileColumns(alone, null).map(({ id }) => id);
    expect(columns.filter((id) => id.startsWith('quantized') || id === 'speedup')).toEqual([]);
    expect(FIRST_COLUMNS.reference.filter((id) => !columns.includes(id))).toEqual(['chart']);
  });

  test('are saved with all digits, what is missing empty', () => {
    const charted = { on: (row: number) => row === 0, toggle: () => undefined };
    const columns = profileColumns(table, charted);
    expect(FIRST_COLUMNS.quantized.filter((id) => !columns.some((column) => column.id === id))).toEqual([]);
    const shown = columns.filter(({ id }) => ['chart', 'op', 'reference_total_us', 'speedup', 'ops'].includes(id));
    expect(tableCsv(shown, [0, 2])).toBe('Chart,Op,Reference µs,Speed-up,Runs as one with\nyes,a,10,0.5,relu\n,c,,,\n');
  });
});

describe('time by type', () => {
  test('has what was added by its own type and adds up to all', () => {
    const types = timeByType(table);
    expect(types.map(({ type }) => type)).toEqual(['MatMul', 'QuantizeLinear', 'Conv']);
    expect(types.reduce((sum, { times }) => sum + times.quantized, 0)).toBe(31);
    expect(types.reduce((sum, { times }) => sum + times.reference, 0)).toBe(50);
  });

  test('keeps small types together', () => {
    const added = ['x', 'y', 'z'].map((op_type) => ({ ...table.profile.added[0], op_type, quantized_us: 0.1 }));
    const types = timeByType(new ProfileTable(profile({ added })));
    expect(types.at(-1)).toMatchObject({ type: '3 other types', isRest: true });
    expect(types.at(-1)!.times.quantized).toBeCloseTo(0.3);
  });
});

test('an axis of speed-ups reaches as far to both sides', () => {
  expect(speedupReach([0.5, 1.2])).toBe(2);
  expect(speedupReach([0.1, 3, NaN])).toBe(16);
  expect(speedupReach([])).toBe(2);
});

test('sums that are more than a tenth apart disagree', () => {
  const [reference, quantized] = sumFacts(table.profile);
  expect([reference.agrees, quantized.agrees]).toEqual([true, false]);
  expect(quantized.agreement).toBeCloseTo(31 / 40);
  expect(reference.overhead).toBeCloseTo(0.5);
});

describe('in the graph', () => {
  const model = new GraphModel({
    grouping: 'scopes',
    ops: ['Conv', 'Relu', 'MatMul'],
    nodes: { name: ['a', 'relu', 'b'], label: ['a', 'relu', 'b'], op: [0, 1, 2], group: [0, 0, 0] },
    groups: { name: ['stage'], parent: [-1] },
    edges: { src: [0, 1], dst: [1, 2], tensor: ['t', 'u'] },
  });
  const nodeOf = (op: string): number | undefined => model.indexOf.get(op);
  const [time, speedup] = timingMetrics(table);

  test('a time is there once and adds up, a speed-up is that of all that run as one', () => {
    const times = timingValues(model, table, time, nodeOf);
    expect([...times.ofNode]).toEqual([20, NaN, 10]);
    expect(times.of(boxOfGroup(0))).toBe(30);
    expect([...timingValues(model, table, speedup, nodeOf).ofNode]).toEqual([0.5, 0.5, 4]);
  });

  test('compared tensors have the time of their op', () => {
    const rows = new RowTable({ index: [0, 1], op: ['relu', 'nobody'] } as unknown as RowColumns);
    expect([...speedup.values(rows)]).toEqual([0.5, NaN]);
  });
});
