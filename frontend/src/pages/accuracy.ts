import { toNumber } from '../api/figures';
import type { Accuracy } from '../api/types';
import { numberText, percentText } from '../app/text';

/** Metrics that are shares of samples read better in percent. */
const SHARES = /agreement|top|accuracy|iou|f1|similarity|precision|recall/i;

export const scoreText = (metric: string, value: number): string =>
  SHARES.test(metric) && Math.abs(value) <= 1 ? percentText(value) : numberText(value);

/** A difference of scores, with its sign. */
export function differenceText(metric: string, value: number): string {
  const text = scoreText(metric, value);
  return value > 0 ? `+${text}` : text;
}

/** Whether the quantized model is worse than chance explains: the whole interval is on the bad side of no change. */
export function isClearlyWorse({ metric, low, high }: Accuracy): boolean {
  return metric === 'mse' ? toNumber(low) > 0 : toNumber(high) < 0;
}
