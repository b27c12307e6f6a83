import { toNumber } from '../api/figures';
import type { Accuracy } from '../api/types';
import { numberText, percentText } from '../app/text';

/** Metrics that are shares of samples read better in percent. */
const SHARES = /agreement|top|accuracy|iou|f1|similarity|precision|recall/i;

export function scoreText(metric: string, value: number): string {
  if (SHARES.test(metric) && Math.abs(value) <= 1) return percentText(value);
  // Of numbers close to 1 the last digits tell, and in a column they stand below each other.
  return metric === 'cosine' && Number.isFinite(value) ? value.toFixed(4).replace('-', '−') : numberText(value);
}

/** A difference of scores, with its sign. */
export function differenceText(metric: string, value: number): string {
  const text = scoreText(metric, value);
  return value > 0 ? `+${text}` : text;
}

/** Whether the quantized model is worse than chance explains: the whole interval is on the bad side of no change. */
export function isClearlyWorse({ metric, low, high }: Accuracy): boolean {
  return metric === 'mse' ? toNumber(low) > 0 : toNumber(high) < 0;
}
