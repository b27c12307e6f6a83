import { toNumber } from '../api/figures';
import type { Figure } from '../api/types';
import { numberText } from '../app/text';

/** A time in the unit that suits it. */
export function timeText(us: number): string {
  if (!Number.isFinite(us)) return numberText(us);
  const [value, unit] = us < 1e3 ? [us, 'µs'] : us < 1e6 ? [us / 1e3, 'ms'] : [us / 1e6, 's'];
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
}

/** Microseconds with one decimal, so that those of a column can be compared at a glance. */
export function microsecondsText(us: number): string {
  if (!Number.isFinite(us)) return numberText(us);
  if (us > 0 && us < 0.05) return '< 0.1';
  return us.toLocaleString('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

const factorText = (factor: number): string =>
  factor >= 100 ? Math.round(factor).toLocaleString('en') : factor.toFixed(factor >= 10 ? 1 : 2);

/** How many times as fast: above 1 is faster. */
export const speedupText = (speedup: number): string =>
  Number.isFinite(speedup) ? `${factorText(speedup)}×` : numberText(speedup);

/** A difference within this share is none. */
const SAME = 0.03;

/** What a speed-up comes to; `even` where the interval holds no change, or next to none. */
export type SpeedTone = 'faster' | 'slower' | 'even' | 'unknown';

interface Speed {
  speedup: Figure;
  low: Figure;
  high: Figure;
}

export function speedTone({ speedup, low, high }: Speed): SpeedTone {
  const [value, least, most] = [speedup, low, high].map(toNumber);
  if (Number.isNaN(value)) return 'unknown';
  if ((least <= 1 && most >= 1) || Math.abs(value - 1) < SAME) return 'even';
  return value >= 1 ? 'faster' : 'slower';
}

/** A speed-up in words with its 95 % interval, the side that is ahead named: "1.42× faster (1.38 to 1.47)". */
export function speedWords(speed: Speed): { verdict: string; interval: string } {
  const [value, low, high] = [speed.speedup, speed.low, speed.high].map(toNumber);
  const tone = speedTone(speed);
  const within = (from: number, to: number): string =>
    Number.isNaN(from) || Number.isNaN(to) ? '' : `${factorText(from)} to ${factorText(to)}`;
  if (tone === 'unknown') return { verdict: 'not compared', interval: '' };
  if (tone === 'even') return { verdict: `about as fast, ${factorText(value)}×`, interval: within(low, high) };
  if (tone === 'faster') return { verdict: `${factorText(value)}× faster`, interval: within(low, high) };
  return { verdict: `${factorText(1 / value)}× slower`, interval: within(1 / high, 1 / low) };
}

/** The words of `speedWords` in one line. */
export function speedLine(speed: Speed): string {
  const { verdict, interval } = speedWords(speed);
  return interval ? `${verdict} (${interval})` : verdict;
}

const COUNTS: readonly (readonly [number, string])[] = [
  [1e12, ' T'],
  [1e9, ' G'],
  [1e6, ' M'],
  [1e3, ' k'],
];

/** A large number with three digits and a letter: 236 M. */
export function largeText(value: number): string {
  const [unit, letter] = COUNTS.find(([least]) => Math.abs(value) >= least) ?? [1, ''];
  return `${numberText(value / unit, 3)}${letter}`;
}
