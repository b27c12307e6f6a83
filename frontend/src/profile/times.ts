import { toNumber } from '../api/figures';
import type { Profile, Side } from '../api/types';
import type { ProfileTable } from './profile-table';

/** How many ops a chart begins with. */
export const FIRST_OPS = 10;

/** The ops on the charts, those that take longest first: the reader's choice, else the first few. */
export function chartedRows(table: ProfileTable, chosen: ReadonlySet<number> | null): number[] {
  const all = table.byTime();
  return chosen ? all.filter((row) => chosen.has(row)) : all.slice(0, FIRST_OPS);
}

/** The time of the kernels of one type, in µs. */
export interface TypeTime {
  type: string;
  times: Record<Side, number>;
  /** Whether it stands for all types that are too small to be shown. */
  isRest: boolean;
}

const LEAST_SHARE = 0.015;
const MOST_TYPES = 8;

/**
 * Each model's time by type of op, the longest first: ops by their own type, kernels that quantization added by theirs.
 * Small ones come last, together.
 */
export function timeByType(table: ProfileTable): TypeTime[] {
  const found = new Map<string, TypeTime>();
  const add = (type: string, side: Side, us: number): void => {
    if (!(us > 0)) return;
    const known = found.get(type) ?? { type, times: { reference: 0, quantized: 0 }, isRest: false };
    known.times[side] += us;
    found.set(type, known);
  };
  for (const side of table.sides) {
    const own = table.figures(side, 'us');
    own.forEach((us, row) => add(table.type(row), side, us));
    for (const added of table.profile.added) add(added.op_type, side, toNumber(added[`${side}_us`]));
  }
  const sorted = [...found.values()].sort((a, b) => longest(b) - longest(a));
  const whole = Math.max(...table.sides.map((side) => sum(sorted.map(({ times }) => times[side]))));
  const shown = sorted.filter((each, i) => i < MOST_TYPES && longest(each) >= LEAST_SHARE * whole);
  const rest = sorted.slice(shown.length);
  if (rest.length < 2) return sorted;
  const times = { reference: 0, quantized: 0 };
  for (const side of table.sides) times[side] = sum(rest.map((each) => each.times[side]));
  return [...shown, { type: `${rest.length} other types`, times, isRest: true }];
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const longest = ({ times }: TypeTime): number => Math.max(times.reference, times.quantized);

/** How far a speed-up axis goes to either side of 1, as a factor: far enough for all, a power of two. */
export function speedupReach(speedups: readonly number[]): number {
  const known = speedups.filter((value) => Number.isFinite(value) && value > 0);
  const largest = Math.max(...known.map((value) => Math.max(value, 1 / value)), 1);
  return 2 ** Math.max(1, Math.ceil(Math.log2(largest)));
}

/** Sums that are further apart than this are said to disagree. */
const AGREEING = 0.1;

/** How one model's time per op adds up. */
export interface SumFacts {
  side: Side;
  latency: number;
  kernels: number;
  /** Sum of the kernels over the latency. */
  agreement: number;
  agrees: boolean;
  /** What the profiler adds, as a share of the latency. */
  overhead: number;
  attributed: number;
}

export function sumFacts(profile: Profile): SumFacts[] {
  const models = [
    ['reference', profile.reference],
    ['quantized', profile.quantized],
  ] as const;
  return models.flatMap(([side, model]) => {
    if (!model) return [];
    const { sums } = model;
    const [latency, profiled, kernels] = [sums.latency_us, sums.profiled_us, sums.kernels_us].map(toNumber);
    const agreement = kernels / latency;
    return {
      side,
      latency,
      kernels,
      agreement,
      agrees: Math.abs(agreement - 1) <= AGREEING,
      overhead: profiled / latency - 1,
      attributed: toNumber(sums.attributed),
    };
  });
}
