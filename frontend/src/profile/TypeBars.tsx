import { useCallback, useMemo } from 'react';
import type { Side } from '../api/types';
import { shareText } from '../app/text';
import { type Axis, place } from '../charts/axis';
import { stacked } from '../charts/budget';
import { Chart, type Reading } from '../charts/Chart';
import type { ChartColours } from '../charts/colours';
import type { Pen } from '../charts/pen';
import type { Point, Size } from '../graph/camera';
import { shortened } from '../graph/painter';
import { csvNumber } from '../table/csv';
import type { ProfileTable } from './profile-table';
import { timeByType, type TypeTime } from './times';
import { timeText } from './words';

const BAR = 24;
const STEP = 34;
const TOP = 10;
const LINE = 21;
const LABEL = 72;
const NUMBER_PIXELS = 62;
/** In a wider picture, figures far from their names would be hard to read. */
const MOST_LIST = 480;

interface Props {
  table: ProfileTable;
  fileName: string;
}

/** Each model's time as one bar of its types of ops, and the types in figures. */
export function TypeBars({ table, fileName }: Props) {
  const { sides } = table;
  const types = useMemo(() => timeByType(table), [table]);
  const totals = useMemo(
    () => sides.map((side) => types.reduce((sum, { times }) => sum + times[side], 0)),
    [sides, types],
  );
  const places = useMemo(() => sides.map((side) => stacked(types.map(({ times }) => times[side]))), [sides, types]);
  const head = TOP + sides.length * STEP + 8;
  const height = head + (types.length + 1) * LINE + 6;

  const axisOf = useCallback(
    (size: Size): Axis => ({ low: 0, high: Math.max(...totals, 1), from: LABEL, to: size.width - NUMBER_PIXELS - 6 }),
    [totals],
  );

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const axis = axisOf(size);
      sides.forEach((side, k) => {
        const y = TOP + k * STEP;
        pen.text(side, { x: LABEL - 8, y: y + BAR / 2 }, { colour: colours.ink, align: 'right' });
        places[k].forEach(({ from, to }, i) => {
          const [left, right] = [place(axis, from), place(axis, to)];
          if (right - left > 0.3)
            pen.rect(
              { x: left, y, width: Math.max(0.5, right - left - 1), height: BAR },
              colourOf(colours, types[i], i),
            );
        });
        const end = { x: place(axis, totals[k]) + 6, y: y + BAR / 2 };
        pen.text(timeText(totals[k]), end, { colour: colours.ink, bold: true });
      });
      const column = (k: number): number => Math.min(size.width, MOST_LIST) - 4 - (sides.length - 1 - k) * 84;
      sides.forEach((side, k) =>
        pen.text(side, { x: column(k), y: head + LINE / 2 - 3 }, { colour: colours.soft, align: 'right' }),
      );
      types.forEach(({ type, times }, i) => {
        const y = head + LINE * (i + 1.5) - 3;
        pen.rect({ x: 2, y: y - 5, width: 10, height: 10 }, colourOf(colours, types[i], i));
        pen.text(shortened(type, Math.floor((column(0) - 80) / 6.4)), { x: 19, y }, { colour: colours.ink });
        sides.forEach((side, k) =>
          pen.text(
            times[side] ? timeText(times[side]) : '–',
            { x: column(k), y },
            { colour: colours.ink, align: 'right' },
          ),
        );
      });
    },
    [axisOf, sides, types, totals, places, head],
  );

  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const axis = axisOf(size);
      const k = Math.floor((at.y - TOP) / STEP);
      const inBar = k >= 0 && k < sides.length && at.y < head;
      const i = inBar
        ? places[k].findIndex(({ from, to }) => at.x >= place(axis, from) && at.x < place(axis, to))
        : Math.floor((at.y - head) / LINE) - 1;
      const found = types[i];
      if (!found) return null;
      const of = (side: Side): string =>
        `${side} ${timeText(found.times[side])}, ${shareText(found.times[side] / totals[sides.indexOf(side)])}`;
      const middle = inBar ? (place(axis, places[k][i].from) + place(axis, places[k][i].to)) / 2 : 7;
      const y = inBar ? TOP + k * STEP + BAR / 2 : head + LINE * (i + 1.5) - 3;
      return { title: found.type, lines: sides.map(of), at: { x: middle, y } };
    },
    [axisOf, sides, types, totals, places, head],
  );

  return (
    <Chart
      title="Time by type of op"
      description={types
        .map(({ type, times }) => `${type}: ${sides.map((side) => `${side} ${timeText(times[side])}`).join(', ')}`)
        .join('; ')}
      fileName={fileName}
      height={height}
      testId="type-bars"
      draw={draw}
      read={read}
      step={{ x: 12, y: LINE }}
      table={() => ({
        header: ['type', ...sides.map((side) => `${side} µs`)],
        rows: types.map(({ type, times }) => [type, ...sides.map((side) => csvNumber(times[side]))]),
      })}
    />
  );
}

const colourOf = (colours: ChartColours, { isRest }: TypeTime, i: number): string =>
  colours.types.at(isRest ? -1 : Math.min(i, colours.types.length - 1))!;
