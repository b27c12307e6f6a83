import { describe, expect, test } from 'vitest';
import type { Column } from './column';
import { csv, tableCsv } from './csv';
import { filterRows, isFiltering, NO_FILTER, type Searchable } from './filter';
import { firstOrder, sortRows } from './order';

const names = ['layer.10/Conv', 'layer.9/Conv', 'layer.9/Add', 'head'];
const types = ['Conv', 'Conv', 'Add', 'MatMul'];
const sqnr = [12, NaN, 30.25, Infinity];
const rows = [0, 1, 2, 3];

const name: Column = { id: 'op', title: 'Op', width: 100, text: (row) => names[row] };
const value: Column = {
  id: 'sqnr',
  title: 'SQNR, dB',
  width: 80,
  text: (row) => sqnr[row].toFixed(1),
  number: (row) => sqnr[row],
};
const of: Searchable = {
  text: (row) => names[row],
  type: (row) => types[row],
  metric: (row) => sqnr[row],
  better: 'high',
};

describe('sorting', () => {
  test('puts rows without a value last, either way', () => {
    expect(sortRows(rows, value, false)).toEqual([0, 2, 3, 1]);
    expect(sortRows(rows, value, true)).toEqual([3, 2, 0, 1]);
  });

  test('sorts numbers in names as numbers', () => {
    expect(sortRows(rows, name, false)).toEqual([3, 2, 1, 0]);
  });

  test('begins with what the output’s error comes from, by SQNR where no row knows', () => {
    const shares = Float64Array.of(NaN, 0.25, NaN);
    expect(firstOrder(shares, [0, 1])).toEqual({ column: 'output_error_share', descending: true });
    expect(firstOrder(shares, [0, 2])).toEqual({ column: 'sqnr_db', descending: false });
  });

  test('leaves the given rows alone', () => {
    const given = [2, 0];
    sortRows(given, value, false);
    expect(given).toEqual([2, 0]);
    expect(sortRows(given, undefined, false)).toEqual([2, 0]);
  });
});

describe('a filter', () => {
  test('asks for every word, in any case', () => {
    expect(filterRows(rows, { ...NO_FILTER, words: 'CONV layer.9' }, of)).toEqual([1]);
    expect(filterRows(rows, { ...NO_FILTER, words: '  ' }, of)).toEqual(rows);
  });

  test('asks for one of the types', () => {
    expect(filterRows(rows, { ...NO_FILTER, types: ['Add', 'MatMul'] }, of)).toEqual([2, 3]);
  });

  test('asks for what is bad enough; rows without a value never are', () => {
    expect(filterRows(rows, { ...NO_FILTER, threshold: 12 }, of)).toEqual([0]);
    expect(filterRows(rows, { ...NO_FILTER, threshold: 12 }, { ...of, better: 'low' })).toEqual([0, 2, 3]);
  });

  test('knows whether it asks for anything', () => {
    expect(isFiltering(NO_FILTER)).toBe(false);
    expect(isFiltering({ ...NO_FILTER, threshold: 0 })).toBe(true);
  });
});

describe('CSV', () => {
  test('quotes what must be quoted', () => {
    expect(csv(['a'], [['x,y'], ['say "no"'], ['two\nlines'], ['plain']])).toBe(
      'a\n"x,y"\n"say ""no"""\n"two\nlines"\nplain\n',
    );
  });

  test('holds the shown columns of the shown rows, numbers with all digits', () => {
    expect(tableCsv([name, value], [2, 1])).toBe('Op,"SQNR, dB"\nlayer.9/Add,30.25\nlayer.9/Conv,\n');
  });
});
