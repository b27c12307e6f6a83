import type { Histogram } from '../api/types';

const FEWEST_BINS = 32;
/** The share of empty bins among those the reference fills from which on codes, and not values, shape the picture. */
const COMB = 0.12;

/** The histogram with pairs of bins made one. */
export function halved({ first, width, reference, quantized }: Histogram): Histogram {
  const pairs = (counts: readonly number[]): number[] =>
    Array.from({ length: Math.ceil(counts.length / 2) }, (_, i) => counts[2 * i] + (counts[2 * i + 1] ?? 0));
  return { first, width: 2 * width, reference: pairs(reference), quantized: pairs(quantized) };
}

/** The share of bins that the reference fills and the quantized tensor leaves empty, by the reference's values. */
function emptyShare({ reference, quantized }: Histogram): number {
  const filled = reference.map((count, i) => [count, quantized[i]]).filter(([count]) => count > 0);
  return filled.filter(([, count]) => count === 0).length / Math.max(1, filled.length);
}

/**
 * The histogram in bins so wide that each holds at least two codes of the quantized tensor.
 *
 * With narrower ones the quantized tensor, which has few different values, is a comb: every other bin is empty. `step`
 * is the distance of two codes, NaN where it is not the same everywhere: then bins grow until hardly any is empty.
 */
export function withoutComb(histogram: Histogram, step: number): Histogram {
  const isComb = (found: Histogram): boolean =>
    Number.isNaN(step) ? emptyShare(found) > COMB : found.width < 2 * step;
  let found = histogram;
  while (found.reference.length > FEWEST_BINS && isComb(found)) found = halved(found);
  return found;
}
