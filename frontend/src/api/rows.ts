import { sharedScope } from '../app/names';
import { toNumbers } from './figures';
import type { Figure, Role, Row, RowColumns } from './types';

type ColumnsWith<T> = { [K in keyof Row]: Row[K] extends T ? K : never }[keyof Row];

/** Columns of text, and of numbers that may be missing. */
export type TextColumn = ColumnsWith<string>;
export type NumberColumn = Exclude<keyof Row, TextColumn>;

/** The compared tensors of a run, in columns. A row is known by its position here; `index` is its key on the server. */
export class RowTable {
  readonly length: number;
  private readonly decoded = new Map<NumberColumn, Float64Array>();
  private readonly positions = new Map<number, number>();

  constructor(private readonly columns: RowColumns) {
    this.length = columns.index.length;
    columns.index.forEach((index, position) => this.positions.set(index, position));
  }

  text(column: TextColumn, row: number): string {
    return this.columns[column][row];
  }

  numbers(column: NumberColumn): Float64Array {
    let found = this.decoded.get(column);
    if (!found) this.decoded.set(column, (found = toNumbers(this.columns[column] as Figure[])));
    return found;
  }

  number(column: NumberColumn, row: number): number {
    return this.numbers(column)[row];
  }

  role(row: number): Role {
    return this.columns.role[row];
  }

  index(row: number): number {
    return this.columns.index[row];
  }

  /** The row with a key of the server. */
  at(index: number): number | undefined {
    return this.positions.get(index);
  }

  /** The rows of a role, in execution order. */
  ofRole(role: Role): number[] {
    return Array.from({ length: this.length }, (_, row) => row).filter((row) => this.columns.role[row] === role);
  }

  /** The rows of an op, by its name. */
  ofOp(op: string): number[] {
    return (this.byOp ??= groupBy(this.columns.op)).get(op) ?? [];
  }

  /** The modules around nearly all ops. */
  get sharedScope(): string {
    return sharedScope(this.columns.op);
  }

  private byOp: Map<string, number[]> | null = null;
}

function groupBy(keys: readonly string[]): Map<string, number[]> {
  const found = new Map<string, number[]>();
  keys.forEach((key, i) => {
    const list = found.get(key);
    if (list) list.push(i);
    else found.set(key, [i]);
  });
  return found;
}
