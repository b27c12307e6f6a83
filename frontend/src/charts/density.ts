import type { CountTable } from '../api/figures';
import { interpolate } from '../colour/ramp';
import type { ChannelData } from './channels';
import { DARK_DENSITY, LIGHT_DENSITY } from './colours';
import type { Bitmap } from './pen';

const SHADES = 256;

const shades = (stops: readonly string[]): Uint32Array =>
  Uint32Array.from({ length: SHADES }, (_, i) => {
    const [r, g, b] = interpolate(stops, i / (SHADES - 1)).map(Math.round);
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });

const LIGHT = shades(LIGHT_DENSITY);
const DARK = shades(DARK_DENSITY);

/**
 * Histograms of channels as pixels, a line per channel or, where there are more channels than lines, per few of them.
 *
 * A line shows the most of its channels: plain scaling would lose the one channel that is an outlier.
 */
export function densityBitmap(
  data: ChannelData,
  { values }: CountTable,
  order: Int32Array,
  mostLines: number,
  dark: boolean,
): Bitmap {
  const { bins, count } = data;
  const height = Math.max(1, Math.min(mostLines, count));
  const pixels = new Uint32Array(bins * height);
  const palette = dark ? DARK : LIGHT;
  const top = Math.log1p(values.reduce((most, value) => Math.max(most, value), 1));
  const line = new Float64Array(bins);
  for (let y = 0; y < height; y++) {
    line.fill(0);
    const end = Math.max(Math.floor((y * count) / height) + 1, Math.floor(((y + 1) * count) / height));
    for (let i = Math.floor((y * count) / height); i < end; i++) {
      const from = order[i] * bins;
      for (let bin = 0; bin < bins; bin++) line[bin] = Math.max(line[bin], values[from + bin]);
    }
    for (let bin = 0; bin < bins; bin++) {
      pixels[y * bins + bin] = palette[Math.round((Math.log1p(line[bin]) / top) * (SHADES - 1))];
    }
  }
  return { width: bins, height, pixels };
}
