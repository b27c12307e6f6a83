import { type ReactNode, useCallback, useEffect, useRef, useState } from 'react';
import type { Point, Rect, Size } from '../graph/camera';
import type { CountTable } from '../api/figures';
import { drawBottomAxis, place } from './axis';
import { channelLines, channelTable } from './channel-reading';
import type { ChannelData } from './channels';
import { Chart, type Reading } from './Chart';
import classes from './ChannelRidgeline.module.css';
import type { ChartColours } from './colours';
import type { Pen } from './pen';

const HEIGHT = 400;
const MARGIN = { left: 44, right: 8, top: 34, bottom: 22 };
const STEP = 15;
const RIDGE = 32;
const WHEEL_LINES = 3;

interface Props {
  data: ChannelData;
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

const SHOWN = Math.floor((HEIGHT - MARGIN.top - MARGIN.bottom) / STEP);

/** The histograms of channels above each other, both models': a window of them, since thousands at once say nothing. */
export function ChannelRidgeline({ data, order, picked, fileName, onPick, controls }: Props) {
  const [first, setFirst] = useState(0);
  const last = Math.max(0, data.count - SHOWN);
  const from = Math.min(first, last);
  const host = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const element = host.current!;
    // React listens passively, which does not let the ridges move without the page.
    const onWheel = (event: WheelEvent): void => {
      const next = Math.max(0, Math.min(last, from + Math.sign(event.deltaY) * WHEEL_LINES));
      if (next === from) return;
      event.preventDefault();
      setFirst(next);
    };
    element.addEventListener('wheel', onWheel, { passive: false });
    return () => element.removeEventListener('wheel', onWheel);
  }, [from, last]);

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const plot = plotOf(size);
      const axis = {
        low: data.first,
        high: data.first + data.width * data.bins,
        from: plot.x,
        to: plot.x + plot.width,
      };
      for (let line = 0; line < Math.min(SHOWN, data.count - from); line++) {
        const channel = order[from + line];
        const bottom = plot.y + (line + 1) * STEP;
        const colour = channel === picked ? colours.cursor : colours.soft;
        pen.text(
          String(channel),
          { x: plot.x - 8, y: bottom - 4 },
          { colour, align: 'right', size: 10, bold: channel === picked },
        );
        const reference = ridge(data, data.counts.reference, channel, plot, bottom);
        // What stands behind shows through no more than a shade.
        pen.polygon(reference, colours.background, 0.85);
        pen.polygon(reference, colours.reference, channel === picked ? 0.6 : 0.34);
        pen.line(reference.slice(1, -1), { colour: colours.reference });
        if (!data.counts.quantized) continue;
        const quantized = ridge(data, data.counts.quantized, channel, plot, bottom);
        pen.line(quantized.slice(1, -1), { colour: colours.quantized, width: 0.9 });
      }
      if (axis.low < 0 && axis.high > 0) {
        const x = place(axis, 0);
        pen.line(
          [
            { x, y: plot.y },
            { x, y: plot.y + plot.height },
          ],
          { colour: colours.soft, width: 0.5, dash: [2, 3] },
        );
      }
      drawBottomAxis(pen, axis, plot, colours);
    },
    [data, order, from, picked],
  );

  const channelAt = useCallback(
    (at: Point, size: Size): number | null => {
      const line = Math.floor((at.y - plotOf(size).y) / STEP);
      return line >= 0 && line < SHOWN && from + line < data.count ? order[from + line] : null;
    },
    [data, order, from],
  );

  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const channel = channelAt(at, size);
      return channel === null ? null : { title: `channel ${channel}`, lines: channelLines(data, channel), at };
    },
    [data, channelAt],
  );

  return (
    <div ref={host}>
      <Chart
        title={`Channels ${from + 1}–${Math.min(data.count, from + SHOWN)} of ${data.count}`}
        description="Histograms of channels above each other: reference filled, quantized as a line."
        fileName={fileName}
        height={HEIGHT}
        testId="ridgeline"
        draw={draw}
        read={read}
        step={{ x: 8, y: STEP }}
        onPick={(at, size) => {
          const channel = channelAt(at, size);
          if (channel !== null) onPick(channel);
        }}
        table={() => channelTable(data, order)}
        controls={controls}
      />
      {last > 0 && (
        <input
          type="range"
          className={classes.window}
          min={0}
          max={last}
          value={from}
          aria-label="First channel shown"
          data-testid="ridgeline-window"
          onChange={(event) => setFirst(Number(event.currentTarget.value))}
        />
      )}
    </div>
  );
}

/** The outline of one histogram over its base line, scaled to its own highest bin: that of an outlier shows too. */
function ridge(data: ChannelData, { values }: CountTable, channel: number, plot: Rect, bottom: number): Point[] {
  const counts = values.subarray(channel * data.bins, (channel + 1) * data.bins);
  const most = Math.log1p(counts.reduce((a, b) => Math.max(a, b), 1));
  const step = plot.width / data.bins;
  const points: Point[] = [{ x: plot.x, y: bottom }];
  counts.forEach((count, bin) =>
    points.push({ x: plot.x + (bin + 0.5) * step, y: bottom - (Math.log1p(count) / most) * RIDGE }),
  );
  points.push({ x: plot.x + plot.width, y: bottom });
  return points;
}
