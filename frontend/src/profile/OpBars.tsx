import { useCallback, useMemo } from 'react';
import type { Point, Rect, Size } from '../graph/camera';
import { shortened } from '../graph/painter';
import { type Axis, place, ticks } from '../charts/axis';
import { Chart, type Reading } from '../charts/Chart';
import type { ChartColours } from '../charts/colours';
import type { Pen } from '../charts/pen';
import { csvNumber } from '../table/csv';
import { ADDED_OPACITY, LABEL_PART, LETTER_PIXELS, LINE, MARGIN, MOST_LABEL } from './bars';
import type { ProfileTable } from './profile-table';
import { timeText } from './words';

interface Props {
  title: string;
  table: ProfileTable;
  rows: readonly number[];
  fileName: string;
  selected: number | null;
  onPick(row: number): void;
}

/** The time of ops in both models: what computes the op, and behind it the changes of type and layout for it. */
export function OpBars({ title, table, rows, fileName, selected, onPick }: Props) {
  const { sides } = table;
  const height = Math.max(rows.length, 1) * LINE + MARGIN.top + MARGIN.bottom;
  const most = useMemo(
    () => Math.max(...sides.flatMap((side) => rows.map((row) => table.figures(side, 'total_us')[row] || 0)), 1),
    [table, sides, rows],
  );
  const [unit, factor] = most >= 2000 ? ['ms', 1e-3] : ['µs', 1];

  const frame = useCallback(
    (size: Size): { plot: Rect; x: Axis } => {
      const left = Math.min(MOST_LABEL, size.width * LABEL_PART);
      const plot = { x: left, y: MARGIN.top, width: size.width - left - MARGIN.right, height: rows.length * LINE };
      return { plot, x: { low: 0, high: most, from: plot.x, to: plot.x + plot.width } };
    },
    [rows, most],
  );

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const { plot, x } = frame(size);
      drawKey(pen, colours, sides.length > 1);
      const at = selected === null ? -1 : rows.indexOf(selected);
      if (at >= 0) pen.rect({ x: 0, y: MARGIN.top + at * LINE, width: size.width, height: LINE }, colours.grid);
      for (const value of ticks(0, most * factor, Math.max(2, plot.width / 90))) {
        const across = place(x, value / factor);
        pen.line(
          [
            { x: across, y: plot.y - 4 },
            { x: across, y: plot.y + plot.height },
          ],
          { colour: colours.grid },
        );
        pen.text(
          value === 0 ? '0' : `${value} ${unit}`,
          { x: across, y: plot.y - 13 },
          { colour: colours.soft, align: 'center' },
        );
      }
      const thick = sides.length > 1 ? 10 : 16;
      rows.forEach((row, i) => {
        const top = MARGIN.top + i * LINE + (LINE - thick * sides.length - 2 * (sides.length - 1)) / 2;
        const letters = Math.floor((plot.x - 14) / LETTER_PIXELS);
        pen.text(
          shortened(table.name(row), letters),
          { x: plot.x - 8, y: MARGIN.top + (i + 0.5) * LINE },
          { colour: colours.ink, align: 'right', bold: i === at },
        );
        sides.forEach((side, number) => {
          const [own, added] = [table.figures(side, 'us')[row] || 0, table.figures(side, 'added_us')[row] || 0];
          const y = top + number * (thick + 2);
          const [end, behind] = [place(x, own), place(x, own + added)];
          pen.rect({ x: x.from, y, width: Math.max(own ? 1 : 0, end - x.from), height: thick }, colours[side]);
          if (added) pen.rect({ x: end, y, width: behind - end, height: thick }, colours[side], ADDED_OPACITY);
        });
      });
    },
    [frame, table, sides, rows, most, unit, factor, selected],
  );

  const indexAt = useCallback((at: Point): number => Math.floor((at.y - MARGIN.top) / LINE), []);
  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const i = indexAt(at);
      const row = rows[i];
      if (row === undefined) return null;
      const { x } = frame(size);
      const totals = sides.map((side) => table.figures(side, 'total_us')[row]);
      return {
        title: table.name(row),
        lines: sides.map((side, k) => {
          if (Number.isNaN(totals[k])) return `${side}: nothing to run`;
          const added = table.figures(side, 'added_us')[row];
          return `${side} ${timeText(totals[k])}${added ? `, ${timeText(added)} of it added` : ''}`;
        }),
        at: { x: place(x, Math.max(...totals.map((us) => us || 0))), y: MARGIN.top + (i + 0.5) * LINE },
      };
    },
    [frame, indexAt, table, sides, rows],
  );

  const description = rows
    .map((row) => {
      const times = sides.map((side) => `${side} ${timeText(table.figures(side, 'total_us')[row])}`);
      return `${table.name(row)}: ${times.join(', ')}`;
    })
    .join('; ');
  return (
    <Chart
      title={title}
      description={description || 'No op is chosen.'}
      fileName={fileName}
      height={height}
      testId="op-bars"
      draw={draw}
      read={read}
      step={{ x: 12, y: LINE }}
      onPick={(at) => rows[indexAt(at)] !== undefined && onPick(rows[indexAt(at)])}
      table={() => ({
        header: ['op', 'type', ...sides.flatMap((side) => [`${side} own µs`, `${side} added µs`])],
        rows: rows.map((row) => [
          table.name(row),
          table.type(row),
          ...sides.flatMap((side) => [
            csvNumber(table.figures(side, 'us')[row]),
            csvNumber(table.figures(side, 'added_us')[row]),
          ]),
        ]),
      })}
    />
  );
}

/** What the colours mean. */
function drawKey(pen: Pen, colours: ChartColours, both: boolean): void {
  let x = 2;
  const entry = (text: string, paint: (x: number) => void, width: number): void => {
    paint(x);
    pen.text(text, { x: x + width + 6, y: 9 }, { colour: colours.soft });
    x += width + 6 + text.length * LETTER_PIXELS + 14;
  };
  const box =
    (colour: string, opacity = 1) =>
    (at: number) =>
      pen.rect({ x: at, y: 4, width: 10, height: 10 }, colour, opacity);
  entry('reference', box(colours.reference), 10);
  if (both) entry('quantized', box(colours.quantized), 10);
  entry(
    'pale: added for it (type and layout)',
    (at) => {
      pen.rect({ x: at, y: 4, width: 10, height: 10 }, colours.reference, ADDED_OPACITY);
      if (both) pen.rect({ x: at + 11, y: 4, width: 10, height: 10 }, colours.quantized, ADDED_OPACITY);
    },
    both ? 21 : 10,
  );
}
