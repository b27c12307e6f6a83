import type { Column } from './column';

export interface Sort {
  column: string;
  descending: boolean;
}

/** The order of a table of ops until the reader chooses one: what the output's error comes from first, if it is known. */
export function firstOrder(shares: Float64Array, rows: readonly number[]): Sort {
  return rows.some((row) => !Number.isNaN(shares[row]))
    ? { column: 'output_error_share', descending: true }
    : { column: 'sqnr_db', descending: false };
}

const collator = new Intl.Collator('en', { numeric: true });

/** The rows in the order of a column; rows without a value come last either way, ties keep their order. */
export function sortRows(rows: readonly number[], column: Column | undefined, descending: boolean): number[] {
  const sorted = [...rows];
  if (!column) return sorted;
  const sign = descending ? -1 : 1;
  const { number, text } = column;
  if (!number) return sorted.sort((a, b) => sign * collator.compare(text(a), text(b)));
  return sorted.sort((a, b) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  });
}
