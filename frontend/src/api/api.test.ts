import { deflateSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { toNumbers, unpackCounts } from './figures';
import { ApiProblem, dataOf } from './problem';
import { RowTable } from './rows';
import { offlineSource } from './source';
import type { RowColumns } from './types';

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

describe('figures', () => {
  test('are numbers, infinite or none', () => {
    expect([...toNumbers([1, null, 'Infinity', '-Infinity'])]).toEqual([1, NaN, Infinity, -Infinity]);
  });
});

describe('counts', () => {
  test.each([
    [1, Uint8Array.from([0, 255, 3, 4])],
    [2, Uint16Array.from([0, 65535, 3, 4])],
    [4, Uint32Array.from([0, 4294967295, 3, 4])],
    [8, BigUint64Array.from([0n, 2n ** 40n, 3n, 4n])],
  ] as const)('of %i bytes are unpacked', async (bytes, numbers) => {
    const data = base64(deflateSync(Buffer.from(numbers.buffer)));
    const { rows, columns, values } = await unpackCounts({ shape: [2, 2], bytes_per_number: bytes, data });
    expect([rows, columns]).toEqual([2, 2]);
    expect([...values]).toEqual(Array.from(numbers, Number));
  });

  test('of another size than said are refused', async () => {
    const data = base64(deflateSync(Buffer.from([1, 2, 3])));
    await expect(unpackCounts({ shape: [2, 2], bytes_per_number: 1, data })).rejects.toThrow('3 bytes');
  });
});

test('rows are found by key, role and op', () => {
  const columns = {
    index: [4, 7, 9],
    role: ['activation', 'weight', 'activation'],
    op: ['a', 'a', 'b'],
    mse: [0.5, null, 'Infinity'],
  } as unknown as RowColumns;
  const table = new RowTable(columns);
  expect(table.at(7)).toBe(1);
  expect(table.at(5)).toBeUndefined();
  expect(table.ofRole('activation')).toEqual([0, 2]);
  expect(table.ofOp('a')).toEqual([0, 1]);
  expect(table.ofOp('c')).toEqual([]);
  expect([...table.numbers('mse')]).toEqual([0.5, NaN, Infinity]);
});

describe('a page that holds its data', () => {
  const packed = (value: unknown): string => base64(deflateSync(Buffer.from(JSON.stringify(value))));
  const source = offlineSource({
    '/api/runs': { runs: [] },
    '/api/runs/a%20%2B%20b/suggestions': packed({ suggestions: [], nothing: 'ünchanged', verify: '' }),
    '/api/runs/a%20%2B%20b/graphs/reference/nodes/*': packed([{ name: 'first' }, { name: 'second' }]),
    '/api/runs/a%20%2B%20b/profile/ops/*': [{ name: 'conv', reference: [], quantized: null }],
  });
  const path = { name: 'a + b' };

  test('answers as the server would', async () => {
    expect(await dataOf(source.client.GET('/api/runs'))).toEqual({ runs: [] });
    const found = await dataOf(source.client.GET('/api/runs/{name}/suggestions', { params: { path } }));
    expect(found.nothing).toBe('ünchanged');
    const node = await dataOf(
      source.client.GET('/api/runs/{name}/graphs/{side}/nodes/{index}', {
        params: { path: { ...path, side: 'reference', index: 1 } },
      }),
    );
    expect(node.name).toBe('second');
    const kernels = source.client.GET('/api/runs/{name}/profile/ops/{index}', {
      params: { path: { ...path, index: 0 } },
    });
    expect((await dataOf(kernels)).name).toBe('conv');
  });

  test('says what it does not hold', async () => {
    const trials = dataOf(source.client.GET('/api/runs/{name}/trials', { params: { path } }));
    await expect(trials).rejects.toThrow(ApiProblem);
    await expect(dataOf(source.client.DELETE('/api/runs/{name}', { params: { path } }))).rejects.toMatchObject({
      status: 404,
    });
  });
});
