import { numberText } from '../app/text';
import type { Rect } from '../graph/camera';
import type { ChartColours } from './colours';
import type { Pen } from './pen';

/** Round values between two others, about `count` of them: 1, 2 or 5 times a power of ten apart. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low) || !Number.isFinite(high - low)) return [];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough)!;
  const first = Math.ceil(low / step);
  const last = Math.floor(high / step);
  // Multiples of the step, rounded to its digits: 3 · 0.1 is not 0.3.
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toFixed(Math.min(100, digits))),
  );
}

/** Where values are on the screen. */
export interface Axis {
  low: number;
  high: number;
  from: number;
  to: number;
}

export const place = ({ low, high, from, to }: Axis, value: number): number =>
  from + ((value - low) / (high - low || 1)) * (to - from);

export const valueAt = ({ low, high, from, to }: Axis, at: number): number =>
  low + ((at - from) / (to - from || 1)) * (high - low);

/** Lines and numbers below a plot. */
export function drawBottomAxis(pen: Pen, axis: Axis, plot: Rect, colours: ChartColours): void {
  const bottom = plot.y + plot.height;
  pen.line(
    [
      { x: plot.x, y: bottom },
      { x: plot.x + plot.width, y: bottom },
    ],
    { colour: colours.soft },
  );
  for (const value of ticks(axis.low, axis.high, Math.max(2, plot.width / 90))) {
    const x = place(axis, value);
    pen.line(
      [
        { x, y: bottom },
        { x, y: bottom + 4 },
      ],
      { colour: colours.soft },
    );
    pen.text(numberText(value), { x, y: bottom + 13 }, { colour: colours.soft, align: 'center' });
  }
}

/** Lines across a plot with numbers at its left. */
export function drawLeftAxis(
  pen: Pen,
  axis: Axis,
  plot: Rect,
  colours: ChartColours,
  values: readonly number[] = ticks(axis.low, axis.high, Math.max(2, plot.height / 44)),
  text: (value: number) => string = numberText,
): void {
  for (const value of values) {
    const y = place(axis, value);
    pen.line(
      [
        { x: plot.x, y },
        { x: plot.x + plot.width, y },
      ],
      { colour: colours.grid },
    );
    pen.text(text(value), { x: plot.x - 6, y }, { colour: colours.soft, align: 'right' });
  }
}
