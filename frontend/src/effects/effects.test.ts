import { describe, expect, test } from 'vitest';
import type { Sensitivities } from '../api/types';
import { GraphModel } from '../graph/model';
import { boxOfGroup } from '../graph/ids';
import { tableCsv } from '../table/csv';
import { certainty, effectColumns, effectMetric, effectsOf, effectValues, placeText, shownInGraph } from './effects';

type Row = Sensitivities['rows'][number];

const row = (op: string, alone: number, more: Partial<Row> = {}): Row => ({
  op,
  op_type: 'Conv',
  scope: '',
  ops: [op],
  alone,
  alone_low: alone / 2,
  alone_high: alone * 2,
  gain: 0,
  best_rank: 1,
  worst_rank: 1,
  ...more,
});

const measured = (rows: Row[], more: Partial<Sensitivities> = {}): Sensitivities => ({
  by: 'op',
  finished: true,
  most_ops: 64,
  rows,
  damage_name: 'noise over signal',
  damage: 0.13,
  samples: 8,
  others: [],
  agreement: {},
  ...more,
});

const model = new GraphModel({
  grouping: 'scopes',
  ops: ['Conv'],
  nodes: { name: ['a', 'b', 'c'], label: ['a', 'b', 'c'], op: [0, 0, 0], group: [1, 1, 2] },
  groups: { name: ['stage', 'left', 'right'], parent: [-1, 0, 0] },
  edges: { src: [0, 1], dst: [1, 2], tensor: ['t', 'u'] },
});

test('a place is one number only if it is certain', () => {
  expect([placeText(3, 3), placeText(3, 5), placeText(null, null)]).toEqual(['3', '3–5', '–']);
});

describe('how far an order can be trusted', () => {
  test('counts the certain places from the first on', () => {
    const second = { best_rank: 2, worst_rank: 2 };
    const third = { best_rank: 3, worst_rank: 9 };
    expect(certainty(measured([row('a', 3), row('b', 2, second), row('c', 1, third)]))).toEqual([
      'The first 2 places are certain.',
    ]);
    expect(certainty(measured([row('a', 3, { worst_rank: 2 })]))[0]).toContain('not certain');
  });

  test('says what was looked at once, and what not at all', () => {
    const idle = row('b', 1e-9, { alone_low: null, alone_high: null, gain: null, best_rank: 2, worst_rank: 2 });
    const [, looked, left] = certainty(measured([row('a', 3), idle], { others: ['c', 'd'] }));
    expect(looked).toContain('1 op does next to nothing');
    expect(left).toContain('2 ops not measured');
  });

  test('is not known before the end', () => {
    const cut = row('a', 3, { alone_low: null, alone_high: null, gain: null, best_rank: null, worst_rank: null });
    expect(certainty(measured([cut], { finished: false }))).toHaveLength(1);
  });
});

test('a table has the figures with like decimals, its CSV with all digits', () => {
  const effects = effectsOf(measured([row('a', 0.070337), row('b', 2e-6, { gain: null })]));
  const columns = effectColumns(effects, 'op');
  const alone = columns.find(({ id }) => id === 'alone')!;
  expect([alone.text(0), alone.text(1)]).toEqual(['0.0703', '< 0.0001']);
  expect(tableCsv(columns, [1])).toContain('b,Conv,0.000002,0.000001,0.000004,\n');
});

describe('in the graph', () => {
  const module = row('stage/left', 0.5, { ops: ['a', 'b'] });

  test('an effect is its op, that of a module the innermost group around its ops', () => {
    const [op, left, both] = effectsOf(measured([row('a', 1), module, row('all', 1, { ops: ['a', 'c'] })]));
    expect(shownInGraph(op, model)).toEqual({ op: 'a' });
    expect(shownInGraph(left, model)).toEqual({ group: 1 });
    expect(shownInGraph(both, model)).toEqual({ group: 0 });
    expect(shownInGraph(left, undefined)).toEqual({ op: 'a' });
  });

  test('ops have the damage of their module, and groups what their ops have', () => {
    const found = measured([module], { by: 'scope' });
    const effects = effectsOf(found);
    const values = effectValues(model, effectMetric(found, effects), effects);
    expect([...values.ofNode]).toEqual([0.5, 0.5, NaN]);
    expect(values.of(boxOfGroup(0))).toBe(0.5);
    expect(values.step(0)).toBe(0);
    expect(values.step(2)).toBe(-1);
  });
});
