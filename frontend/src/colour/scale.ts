import { STEPS } from './ramp';

/** Which way a metric gets worse. */
export type Better = 'high' | 'low';

/** From values to steps of the ramp: `worst` and `best` get its ends. */
export interface Scale {
  worst: number;
  best: number;
  log: boolean;
}

/** The step of a value, 0 for the worst; −1 where there is none. */
export function stepOf(scale: Scale, value: number): number {
  if (Number.isNaN(value)) return -1;
  const at = scale.log ? Math.log10(Math.max(value, Number.MIN_VALUE)) : value;
  const worst = scale.log ? Math.log10(scale.worst) : scale.worst;
  const best = scale.log ? Math.log10(scale.best) : scale.best;
  const share = worst === best ? 1 : (at - worst) / (best - worst);
  return Math.round(Math.max(0, Math.min(1, share)) * (STEPS - 1));
}

/** A scale that spans the middle 96 % of the values: one wild value does not make all others look alike. */
export function scaleOf(values: ArrayLike<number>, better: Better, log: boolean): Scale {
  const sorted = Float64Array.from(values)
    .filter((v) => Number.isFinite(v) && (!log || v > 0))
    .sort();
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))] ?? (log ? 1 : 0);
  const [low, high] = [at(0.02), at(0.98)];
  return better === 'high' ? { worst: low, best: high, log } : { worst: high, best: low, log };
}

/** A scale from nothing to the largest share: one that stands out shall, in a model where others are next to nothing. */
export function scaleOfShares(values: ArrayLike<number>): Scale {
  const largest = Array.from(values).reduce((most, value) => (value > most ? value : most), 0);
  return { worst: largest || 1, best: 0, log: false };
}

/** True if `a` is worse than `b`; no value is never worse. */
export const isWorse = (better: Better, a: number, b: number): boolean =>
  Number.isNaN(b) ? !Number.isNaN(a) : better === 'high' ? a < b : a > b;
