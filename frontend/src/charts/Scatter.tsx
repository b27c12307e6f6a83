import { useCallback, useMemo } from 'react';
import { numberText } from '../app/text';
import type { Point, Rect, Size } from '../graph/camera';
import { csvNumber } from '../table/csv';
import { type Axis, drawBottomAxis, drawLeftAxis, place } from './axis';
import { Chart, type Reading } from './Chart';
import type { ChartColours } from './colours';
import type { Pen } from './pen';

const MARGIN = { left: 58, right: 16, top: 22, bottom: 40 };
const REACH_PIXELS = 14;

export interface Dot extends Point {
  name: string;
  lines: readonly string[];
  /** From where to where x may be: drawn as a line through the dot. */
  reach?: readonly [number, number];
  /** Filled and joined to the others of its kind by a line. */
  strong?: boolean;
}

interface Props {
  title: string;
  description: string;
  fileName: string;
  testId: string;
  height: number;
  xTitle: string;
  yTitle: string;
  dots: readonly Dot[];
  /** From where to where x goes, if that is known; else as far as the dots do. */
  xRange?: readonly [number, number];
  selected: number | null;
  /** Draw the line on which both axes agree. */
  diagonal?: boolean;
  /** A level of y to keep above, in words. */
  level?: { value: number; title: string } | null;
  /** A value of x to compare with, in words. */
  mark?: { value: number; title: string } | null;
  onPick(index: number): void;
}

interface Frame {
  plot: Rect;
  x: Axis;
  y: Axis;
}

function spread(values: readonly number[]): [number, number] {
  const finite = values.filter(Number.isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  if (!finite.length) return [0, 1];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
}

/** Points in a plane, with what they are at the pointer. */
export function Scatter(props: Props) {
  const { title, description, fileName, testId, height, xTitle, yTitle, dots, xRange } = props;
  const { selected, diagonal, level, mark, onPick } = props;
  const [xs, ys] = useMemo(() => {
    const x = [...dots.flatMap((dot) => [dot.x, ...(dot.reach ?? [])]), ...(mark ? [mark.value] : [])];
    const y = [...dots.map((dot) => dot.y), ...(level ? [level.value] : [])];
    return diagonal ? [spread([...x, ...y]), spread([...x, ...y])] : [xRange ?? spread(x), spread(y)];
  }, [dots, diagonal, level, mark, xRange]);

  const frame = useCallback(
    (size: Size): Frame => {
      const plot = {
        x: MARGIN.left,
        y: MARGIN.top,
        width: size.width - MARGIN.left - MARGIN.right,
        height: size.height - MARGIN.top - MARGIN.bottom,
      };
      return {
        plot,
        x: { low: xs[0], high: xs[1], from: plot.x, to: plot.x + plot.width },
        y: { low: ys[0], high: ys[1], from: plot.y + plot.height, to: plot.y },
      };
    },
    [xs, ys],
  );

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const { plot, x, y } = frame(size);
      const at = (dot: Point): Point => ({ x: place(x, dot.x), y: place(y, dot.y) });
      drawLeftAxis(pen, y, plot, colours);
      drawBottomAxis(pen, x, plot, colours);
      pen.text(yTitle, { x: plot.x - 50, y: 9 }, { colour: colours.soft, bold: true });
      pen.text(
        xTitle,
        { x: plot.x + plot.width, y: size.height - 9 },
        { colour: colours.soft, align: 'right', bold: true },
      );
      if (diagonal) {
        const ends = [xs[0], xs[1]].map((value) => at({ x: value, y: value }));
        pen.line(ends, { colour: colours.soft, dash: [4, 4] });
      }
      if (level) {
        const line = place(y, level.value);
        pen.line(
          [
            { x: plot.x, y: line },
            { x: plot.x + plot.width, y: line },
          ],
          { colour: colours.limit, dash: [5, 4], width: 1.3 },
        );
        pen.text(level.title, { x: plot.x + 6, y: line + 11 }, { colour: colours.limit });
      }
      if (mark) {
        const line = place(x, mark.value);
        pen.line(
          [
            { x: line, y: plot.y },
            { x: line, y: plot.y + plot.height },
          ],
          { colour: colours.soft, dash: [2, 4], width: 1.3 },
        );
        const right = line > plot.x + plot.width / 2;
        pen.text(
          mark.title,
          { x: line + (right ? -6 : 6), y: plot.y + 8 },
          { colour: colours.soft, align: right ? 'right' : 'left' },
        );
      }
      dots.forEach(({ reach, y: value }) => {
        if (!reach || !Number.isFinite(value)) return;
        pen.line(
          reach.map((end) => at({ x: end, y: value })),
          { colour: colours.soft, width: 1.2 },
        );
      });
      const front = dots.filter((dot) => dot.strong).sort((a, b) => a.x - b.x);
      if (front.length > 1) pen.line(front.map(at), { colour: colours.reference, width: 1.5 });
      const many = dots.length > 300;
      dots.forEach((dot) => {
        if (!Number.isFinite(dot.x) || !Number.isFinite(dot.y)) return;
        const fill = dot.strong || diagonal ? colours.reference : colours.background;
        pen.circle(at(dot), many ? 2.2 : 4.5, fill, many ? undefined : { colour: colours.reference, width: 1.4 });
      });
      const chosen = selected === null ? undefined : dots[selected];
      if (chosen) pen.circle(at(chosen), 8, 'transparent', { colour: colours.quantized, width: 2.5 });
    },
    [frame, dots, xs, diagonal, level, mark, selected, xTitle, yTitle],
  );

  const nearest = useCallback(
    (at: Point, size: Size): number => {
      const { x, y } = frame(size);
      let [found, closest] = [-1, REACH_PIXELS];
      dots.forEach((dot, i) => {
        const distance = Math.hypot(place(x, dot.x) - at.x, place(y, dot.y) - at.y);
        if (distance < closest) [found, closest] = [i, distance];
      });
      return found;
    },
    [frame, dots],
  );

  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const dot = dots[nearest(at, size)];
      if (!dot) return null;
      const { x, y } = frame(size);
      return { title: dot.name, lines: dot.lines, at: { x: place(x, dot.x), y: place(y, dot.y) } };
    },
    [dots, nearest, frame],
  );

  return (
    <Chart
      title={title}
      description={`${description} ${xTitle} from ${numberText(xs[0])} to ${numberText(xs[1])}, ${yTitle} from ${numberText(ys[0])} to ${numberText(ys[1])}.`}
      fileName={fileName}
      height={height}
      testId={testId}
      draw={draw}
      read={read}
      onPick={(at, size) => {
        const found = nearest(at, size);
        if (found >= 0) onPick(found);
      }}
      table={() => ({
        header: ['name', xTitle, yTitle],
        rows: dots.map((dot) => [dot.name, csvNumber(dot.x), csvNumber(dot.y)]),
      })}
    />
  );
}
