import { SegmentedControl } from '@mantine/core';
import { useCallback, useMemo, useState } from 'react';
import type { Histogram } from '../api/types';
import { countText, numberText, percentText } from '../app/text';
import type { Point, Rect, Size } from '../graph/camera';
import { csvNumber } from '../table/csv';
import { type Axis, drawBottomAxis, drawLeftAxis, place, ticks, valueAt } from './axis';
import { Chart, type Reading } from './Chart';
import type { ChartColours } from './colours';
import { withoutComb } from './histogram';
import type { Pen } from './pen';

const HEIGHT = 210;
const MARGIN = { left: 52, right: 10, top: 20, bottom: 22 };

interface Props {
  title: string;
  fileName: string;
  histogram: Histogram;
  /** What the codes can represent: values beyond it are clipped. */
  range: readonly number[] | null;
  /** The distance of two codes; NaN where it is not the same everywhere. */
  step: number;
}

interface Frame {
  plot: Rect;
  x: Axis;
  y: Axis;
}

const heightOf = (count: number, log: boolean): number => (log ? Math.log10(1 + count) : count);

function frameOf(histogram: Histogram, range: readonly number[] | null, size: Size, log: boolean): Frame {
  const { first, width, reference, quantized } = histogram;
  const plot = {
    x: MARGIN.left,
    y: MARGIN.top,
    width: size.width - MARGIN.left - MARGIN.right,
    height: size.height - MARGIN.top - MARGIN.bottom,
  };
  const most = Math.max(1, ...reference, ...quantized);
  const last = first + width * reference.length;
  // A range far wider than the values would press them into one bar: then its limits are said, not shown.
  const [low, high] = range && range[1] - range[0] < 4 * (last - first) ? range : [first, last];
  return {
    plot,
    x: { low: Math.min(first, low), high: Math.max(last, high), from: plot.x, to: plot.x + plot.width },
    y: { low: 0, high: heightOf(most, log), from: plot.y + plot.height, to: plot.y },
  };
}

/** Values of both models on shared bins, with the quantization range marked and what it clips. */
export function ActivationHistogram({ title, fileName, histogram: given, range, step }: Props) {
  const histogram = useMemo(() => withoutComb(given, step), [given, step]);
  const [kind, setKind] = useState('log');
  const log = kind === 'log';
  const { first, width, reference, quantized } = histogram;

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const { plot, x, y } = frameOf(histogram, range, size, log);
      drawCounts(pen, plot, y, colours, log);
      const edge = (bin: number): number => place(x, first + bin * width);
      const outline = (counts: readonly number[]): Point[] =>
        counts.flatMap((count, bin) => {
          const top = place(y, heightOf(count, log));
          return [
            { x: edge(bin), y: top },
            { x: edge(bin + 1), y: top },
          ];
        });
      const shape = outline(reference);
      const bottom = plot.y + plot.height;
      pen.polygon([{ x: shape[0].x, y: bottom }, ...shape, { x: shape.at(-1)!.x, y: bottom }], colours.reference, 0.3);
      pen.line(shape, { colour: colours.reference });
      pen.line(outline(quantized), { colour: colours.quantized, width: 1.4 });
      if (range) drawRange(pen, range, x, plot, colours);
      drawBottomAxis(pen, x, plot, colours);
      pen.text('reference', { x: plot.x, y: 8 }, { colour: colours.reference, bold: true });
      pen.text('quantized', { x: plot.x + 66, y: 8 }, { colour: colours.quantized, bold: true });
    },
    [histogram, range, log, first, width, reference, quantized],
  );

  const total = reference.reduce((sum, count) => sum + count, 0);
  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const { x, y } = frameOf(histogram, range, size, log);
      const bin = Math.floor((valueAt(x, at.x) - first) / width);
      if (!(bin >= 0 && bin < reference.length)) return null;
      return {
        title: `${numberText(first + bin * width)} … ${numberText(first + (bin + 1) * width)}`,
        lines: [
          `reference ${reference[bin].toLocaleString('en')} (${percentText(reference[bin] / total)})`,
          `quantized ${quantized[bin].toLocaleString('en')}`,
        ],
        at: { x: place(x, first + (bin + 0.5) * width), y: place(y, heightOf(reference[bin], log)) },
      };
    },
    [histogram, range, log, first, width, reference, quantized, total],
  );

  return (
    <Chart
      title={title}
      description={`${countText(total, 'value')} of the reference from ${numberText(first)} to ${numberText(first + width * reference.length)}${range ? `; codes represent ${numberText(range[0])} to ${numberText(range[1])}` : ''}.`}
      fileName={fileName}
      height={HEIGHT}
      testId="histogram"
      draw={draw}
      read={read}
      table={() => ({
        header: ['from', 'to', 'reference', 'quantized'],
        rows: reference.map((count, bin) => [
          csvNumber(first + bin * width),
          csvNumber(first + (bin + 1) * width),
          String(count),
          String(quantized[bin]),
        ]),
      })}
      controls={
        <SegmentedControl
          size="xs"
          value={kind}
          onChange={setKind}
          data={['log', 'linear']}
          aria-label="Scale of the counts"
        />
      }
    />
  );
}

function drawCounts(pen: Pen, plot: Rect, y: Axis, colours: ChartColours, log: boolean): void {
  if (!log)
    return drawLeftAxis(pen, y, plot, colours, undefined, (value) =>
      value.toLocaleString('en', { notation: 'compact' }),
    );
  const powers = ticks(0, y.high, Math.min(5, Math.ceil(y.high))).filter(Number.isInteger);
  drawLeftAxis(pen, y, plot, colours, powers, (power) =>
    power === 0 ? '0' : power < 4 ? String(10 ** power) : `1e${power}`,
  );
}

function drawRange(pen: Pen, range: readonly number[], x: Axis, plot: Rect, colours: ChartColours): void {
  range.forEach((limit, side) => {
    const at = place(x, limit);
    if (at < plot.x - 0.5 || at > plot.x + plot.width + 0.5) return;
    const edge = side ? plot.x + plot.width : plot.x;
    pen.rect(
      { x: Math.min(at, edge), y: plot.y, width: Math.abs(edge - at), height: plot.height },
      colours.clipped,
      0.13,
    );
    const ends = [
      { x: at, y: plot.y - 2 },
      { x: at, y: plot.y + plot.height },
    ];
    pen.line(ends, { colour: colours.limit, width: 1.5, dash: [4, 3] });
  });
  const inside = (range.map((limit) => place(x, limit))[1] + place(x, range[0])) / 2;
  const text = `codes: ${numberText(range[0])} … ${numberText(range[1])}`;
  const middle = Math.max(plot.x + 220, Math.min(plot.x + plot.width - 70, inside));
  pen.text(text, { x: middle, y: 8 }, { colour: colours.limit, align: 'center' });
}
