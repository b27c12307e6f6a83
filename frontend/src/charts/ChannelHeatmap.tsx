import { type ReactNode, useCallback, useMemo } from 'react';
import type { Side } from '../api/types';
import { numberText } from '../app/text';
import type { Point, Rect, Size } from '../graph/camera';
import { drawBottomAxis, place, valueAt } from './axis';
import { channelLines, channelTable } from './channel-reading';
import type { ChannelData } from './channels';
import { Chart, type Reading } from './Chart';
import type { ChartColours } from './colours';
import { densityBitmap } from './density';
import type { Pen } from './pen';

const MARGIN = { left: 8, right: 8, top: 4, bottom: 22 };
const LINE_PIXELS = 6;
const LOWEST = 90;
const HIGHEST = 380;

interface Props {
  data: ChannelData;
  side: Side;
  order: Int32Array;
  picked: number | null;
  fileName: string;
  onPick(channel: number): void;
  controls?: ReactNode;
}

const plotOf = (size: Size): Rect => ({
  x: MARGIN.left,
  y: MARGIN.top,
  width: size.width - MARGIN.left - MARGIN.right,
  height: size.height - MARGIN.top - MARGIN.bottom,
});

const axisOf = ({ first, width, bins }: ChannelData, plot: Rect) => ({
  low: first,
  high: first + width * bins,
  from: plot.x,
  to: plot.x + plot.width,
});

/** The values of every channel, a line each: where the many are, and with marks where each begins and ends. */
export function ChannelHeatmap({ data, side, order, picked, fileName, onPick, controls }: Props) {
  const height = Math.max(LOWEST, Math.min(HIGHEST, data.count * LINE_PIXELS)) + MARGIN.top + MARGIN.bottom;
  const lines = height - MARGIN.top - MARGIN.bottom;
  const counts = data.counts[side] ?? data.counts.reference;
  const bitmaps = useMemo(
    () => [false, true].map((dark) => densityBitmap(data, counts, order, lines, dark)),
    [data, counts, order, lines],
  );

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours, dark: boolean): void => {
      const plot = plotOf(size);
      const axis = axisOf(data, plot);
      pen.image(bitmaps[Number(dark)], plot);
      if (axis.low < 0 && axis.high > 0) {
        const x = place(axis, 0);
        pen.line(
          [
            { x, y: plot.y },
            { x, y: plot.y + plot.height },
          ],
          { colour: colours.soft, width: 0.6 },
        );
      }
      drawExtremes(pen, data, side, order, plot, colours);
      const at = picked === null ? -1 : order.indexOf(picked);
      if (at >= 0) {
        const line = plot.height / data.count;
        const y = plot.y + at * line;
        const bottom = y + Math.max(line, 2);
        for (const edge of [y, bottom]) {
          pen.line(
            [
              { x: plot.x, y: edge },
              { x: plot.x + plot.width, y: edge },
            ],
            { colour: colours.cursor, width: 1.2 },
          );
        }
      }
      drawBottomAxis(pen, axis, plot, colours);
    },
    [bitmaps, data, side, order, picked],
  );

  const channelAt = useCallback(
    (at: Point, size: Size): number => {
      const plot = plotOf(size);
      const line = Math.floor(((at.y - plot.y) / plot.height) * data.count);
      return order[Math.max(0, Math.min(data.count - 1, line))];
    },
    [data, order],
  );

  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const axis = axisOf(data, plotOf(size));
      const channel = channelAt(at, size);
      const bin = Math.max(0, Math.min(data.bins - 1, Math.floor((valueAt(axis, at.x) - data.first) / data.width)));
      const count = counts.values[channel * data.bins + bin];
      return {
        title: `channel ${channel}`,
        lines: [
          ...channelLines(data, channel),
          `${count.toLocaleString('en')} values near ${numberText(valueAt(axis, at.x), 3)}`,
        ],
        at,
      };
    },
    [data, counts, channelAt],
  );

  return (
    <Chart
      title="Values by channel"
      description={`${data.count} channels, a line each; darker where a channel has more values (in the dark theme: lighter), with marks at its minimum and maximum.`}
      fileName={fileName}
      height={height}
      testId="heatmap"
      draw={draw}
      read={read}
      step={{ x: 8, y: Math.max(1, lines / data.count) }}
      onPick={(at, size) => onPick(channelAt(at, size))}
      table={() => channelTable(data, order)}
      controls={controls}
    />
  );
}

function drawExtremes(
  pen: Pen,
  data: ChannelData,
  side: Side,
  order: Int32Array,
  plot: Rect,
  colours: ChartColours,
): void {
  const axis = axisOf(data, plot);
  const lines = Math.min(data.count, Math.floor(plot.height));
  const height = plot.height / lines;
  for (let line = 0; line < lines; line++) {
    // Where a line stands for several channels, its marks are those of all of them.
    const channels = order.subarray(
      Math.floor((line * data.count) / lines),
      Math.max(1, Math.floor(((line + 1) * data.count) / lines)),
    );
    const ends = [
      channels.reduce((least, c) => Math.min(least, data.minimum[side][c]), Infinity),
      channels.reduce((most, c) => Math.max(most, data.maximum[side][c]), -Infinity),
    ];
    for (const end of ends) {
      if (!Number.isFinite(end)) continue;
      const x = Math.max(plot.x, Math.min(plot.x + plot.width - 1.5, place(axis, end)));
      pen.rect({ x, y: plot.y + line * height, width: 1.5, height: Math.max(1, height - 0.5) }, colours.quantized);
    }
  }
}
