import { numberText } from '../app/text';
import type { Speed } from '../api/types';

/** A time, of µs, in ms. */
export const millisecondsText = (us: number): string => `${numberText(us / 1000, 3)} ms`;

/** By how much a model is faster than the float model, with its 95 % interval. */
export const speedText = ({ speedup, low, high }: Speed): string =>
  `${speedup.toFixed(2)}× (${low.toFixed(2)} to ${high.toFixed(2)})`;
