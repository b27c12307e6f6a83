const MINUS = '−';
const NONE = '–';

const signed = (text: string): string => text.replace(/^-/, MINUS).replace(/e-/, `e${MINUS}`).replace(/e\+/, 'e');

/** A number with four significant digits; a dash where there is none. */
export function numberText(value: number, digits = 4): string {
  if (Number.isNaN(value)) return NONE;
  if (!Number.isFinite(value)) return value > 0 ? '∞' : `${MINUS}∞`;
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return signed(value.toExponential(digits - 2));
  return signed(Number(value.toPrecision(digits)).toString());
}

export function decibelText(value: number): string {
  if (!Number.isFinite(value)) return numberText(value);
  return signed(value.toFixed(1));
}

export function percentText(share: number): string {
  if (Number.isNaN(share)) return NONE;
  const percent = share * 100;
  if (percent === 0) return '0 %';
  const size = Math.abs(percent);
  if (size < 0.001) return `< 0.001 %`;
  return `${signed(percent.toFixed(size < 0.1 ? 3 : size < 10 ? 2 : 1))} %`;
}

/** A part of a whole with one decimal, so that those of a column can be compared at a glance. */
export function shareText(share: number): string {
  if (Number.isNaN(share)) return NONE;
  if (share > 0 && share < 0.0005) return '< 0.1 %';
  return `${signed((100 * share).toFixed(1))} %`;
}

/** Numbers of a column with the same decimals, so that the largest has three digits: then they can be compared. */
export function alignedText(largest: number): (value: number) => string {
  const decimals = 2 - Math.floor(Math.log10(Math.abs(largest)));
  if (!(decimals >= 0 && decimals <= 7)) return (value) => numberText(value, 3);
  const least = 0.5 * 10 ** -decimals;
  return (value) => {
    if (!Number.isFinite(value) || value === 0) return numberText(value);
    if (Math.abs(value) < least) return `${value < 0 ? '> −' : '< '}${(2 * least).toFixed(decimals)}`;
    return signed(value.toFixed(decimals));
  };
}

const BYTE_UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

export function bytesText(bytes: number | null): string {
  if (bytes === null) return NONE;
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < BYTE_UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

export function durationText(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const AGES: readonly (readonly [number, string])[] = [
  [86400 * 365, 'year'],
  [86400 * 30, 'month'],
  [86400, 'day'],
  [3600, 'hour'],
  [60, 'minute'],
];

/** How long ago a moment was. */
export function ageText(moment: string, now: number = Date.now()): string {
  const seconds = (now - Date.parse(moment)) / 1000;
  if (Number.isNaN(seconds)) return NONE;
  for (const [unit, name] of AGES) {
    const count = Math.floor(seconds / unit);
    if (count >= 1) return `${count} ${name}${count > 1 ? 's' : ''} ago`;
  }
  return 'just now';
}

export const countText = (count: number, one: string, many = `${one}s`): string =>
  `${count.toLocaleString('en')} ${count === 1 ? one : many}`;

/** The last part of a path. */
export const fileName = (path: string): string => path.split(/[\\/]/).at(-1) ?? path;
