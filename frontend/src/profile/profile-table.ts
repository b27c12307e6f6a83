import { toNumbers } from '../api/figures';
import type { Figure, LatencyComparison, OpTimings, Profile, Side } from '../api/types';
import { sharedScope } from '../app/names';

type FiguresOf<S extends Side> = keyof OpTimings extends infer K
  ? K extends `${S}_${infer Name}`
    ? OpTimings[K & keyof OpTimings] extends Figure[]
      ? Name
      : never
    : never
  : never;

/** What is known of an op in one model. */
export type SideFigure = FiguresOf<'reference'>;

/** A profile with its ops in columns. An op, or several that run as one, is known by its place, which is its key. */
export class ProfileTable {
  readonly length: number;
  /** The model that the page is about: the quantized one, or the only one. */
  readonly main: Side;
  private readonly decoded = new Map<string, Float64Array>();
  private readonly rows = new Map<string, number>();

  constructor(readonly profile: Profile) {
    this.length = profile.ops.name.length;
    this.main = profile.quantized ? 'quantized' : 'reference';
    profile.ops.ops.forEach((ops, row) => ops.forEach((op) => this.rows.set(op, row)));
    profile.ops.name.forEach((op, row) => this.rows.set(op, row));
  }

  /** The models that were profiled. */
  get sides(): readonly Side[] {
    return this.profile.quantized ? ['reference', 'quantized'] : ['reference'];
  }

  /** The latency at the setting whose ops were timed. */
  get compared(): LatencyComparison | undefined {
    const { latencies, batch, threads, optimized } = this.profile;
    return latencies.find((each) => each.batch === batch && each.threads === threads && each.optimized === optimized);
  }

  name(row: number): string {
    return this.profile.ops.name[row];
  }

  /** The modules around nearly all ops. */
  get sharedScope(): string {
    return sharedScope(this.profile.ops.name);
  }

  type(row: number): string {
    return this.profile.ops.op_type[row];
  }

  scope(row: number): string {
    return this.profile.ops.scope[row];
  }

  /** All ops that the row stands for. */
  ops(row: number): readonly string[] {
    return this.profile.ops.ops[row];
  }

  dtype(side: Side, row: number): string {
    return this.profile.ops[`${side}_dtype`][row];
  }

  figures(side: Side, name: SideFigure): Float64Array {
    return this.column(`${side}_${name}`);
  }

  get speedup(): Float64Array {
    return this.column('speedup');
  }

  get multiplyAdds(): Float64Array {
    return this.column('multiply_adds');
  }

  /** The row that an op is part of, by the op's name. */
  rowOf(op: string | undefined): number | null {
    return op === undefined ? null : (this.rows.get(op) ?? null);
  }

  /** All rows, those that take longest first. */
  byTime(): number[] {
    const time = this.figures(this.main, 'total_us');
    return Array.from({ length: this.length }, (_, row) => row).sort((a, b) => (time[b] || 0) - (time[a] || 0));
  }

  private column(key: 'speedup' | 'multiply_adds' | `${Side}_${SideFigure}`): Float64Array {
    let found = this.decoded.get(key);
    if (!found) this.decoded.set(key, (found = toNumbers(this.profile.ops[key])));
    return found;
  }
}
