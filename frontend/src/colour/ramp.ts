/**
 * How good a value is, the worst first: red over a pale middle to blue, which readers with any common colour
 * blindness tell apart. What has no value has no colour of the ramp at all: it is drawn hollow, with a dashed edge.
 */
const LIGHT_STOPS = ['#a3121f', '#d5402b', '#f08a4b', '#fbc98d', '#ece6da', '#b5d3ea', '#77add9', '#4a8fd0'];
const DARK_STOPS = ['#ff6a52', '#f7894f', '#eeae5c', '#e3cf8b', '#b3d0c4', '#82b9da', '#5fa4e4', '#4a93e0'];

/** Of parts of a whole, the largest first: one hue, ever paler, so that grey tells as much. */
const LIGHT_AMOUNTS = ['#4d0f5e', '#7c1f7b', '#a93c8f', '#cf67a3', '#e698bd', '#f2c3d8', '#f8e2ec'];
const DARK_AMOUNTS = ['#ffd9ec', '#f7b0d5', '#e684be', '#c75ca6', '#9a428c', '#6c3870', '#442f50'];

/** What colours tell: how good a value is, or how much of a whole it is. */
export type RampKind = 'quality' | 'amount';

export const STEPS = 24;

type Rgb = readonly [number, number, number];

const parse = (hex: string): Rgb => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)) as unknown as Rgb;
const format = (rgb: Rgb): string => `#${rgb.map((v) => Math.round(v).toString(16).padStart(2, '0')).join('')}`;

/** The colour at `share` (0 to 1) of stops that are evenly spaced. */
export function interpolate(stops: readonly string[], share: number): Rgb {
  const at = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  const [a, b] = [parse(stops[low]), parse(stops[low + 1])];
  return a.map((value, i) => value + (b[i] - value) * (at - low)) as unknown as Rgb;
}

const steps = (stops: readonly string[]): readonly string[] =>
  Array.from({ length: STEPS }, (_, i) => format(interpolate(stops, i / (STEPS - 1))));

const RAMPS = {
  quality: { light: steps(LIGHT_STOPS), dark: steps(DARK_STOPS) },
  amount: { light: steps(LIGHT_AMOUNTS), dark: steps(DARK_AMOUNTS) },
} as const;

/** The steps of a ramp, the worst or the largest first. */
export const ramp = (kind: RampKind, dark: boolean): readonly string[] => RAMPS[kind][dark ? 'dark' : 'light'];

/** Relative luminance, from 0 for black to 1 for white: WCAG 2.2. */
export function luminance(hex: string): number {
  const [r, g, b] = parse(hex).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** The contrast of two colours, from 1 to 21: WCAG 2.2. */
export function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

const DARK_INK = '#0d1218';

/** Black or white, whichever is easier to read on a colour. */
export const inkOn = (colour: string): string =>
  contrast(colour, DARK_INK) >= contrast(colour, '#ffffff') ? DARK_INK : '#ffffff';
