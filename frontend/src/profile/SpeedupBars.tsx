import { useCallback, useMemo } from 'react';
import { type Axis, place } from '../charts/axis';
import { Chart, type Reading } from '../charts/Chart';
import type { ChartColours } from '../charts/colours';
import type { Pen } from '../charts/pen';
import type { Point, Size } from '../graph/camera';
import { shortened } from '../graph/painter';
import { csvNumber } from '../table/csv';
import { LABEL_PART, LETTER_PIXELS, LINE, MARGIN, MOST_LABEL } from './bars';
import type { ProfileTable } from './profile-table';
import { speedupReach } from './times';
import { speedupText, timeText } from './words';

const BAR = 14;
/** Room for the number at the end of the longest bar. */
const NUMBER_PIXELS = 46;

interface Props {
  title: string;
  table: ProfileTable;
  rows: readonly number[];
  fileName: string;
  selected: number | null;
  onPick(row: number): void;
}

/** How many times as fast each op is in the quantized model: from 1 to the right faster, to the left slower. */
export function SpeedupBars({ title, table, rows, fileName, selected, onPick }: Props) {
  const height = Math.max(rows.length, 1) * LINE + MARGIN.top + MARGIN.bottom;
  const { speedup } = table;
  const reach = useMemo(() => speedupReach(rows.map((row) => speedup[row])), [rows, speedup]);

  const axisOf = useCallback(
    (size: Size): Axis => {
      const left = Math.min(MOST_LABEL, size.width * LABEL_PART);
      const [from, to] = [left + NUMBER_PIXELS, size.width - MARGIN.right - NUMBER_PIXELS];
      return { low: -Math.log2(reach), high: Math.log2(reach), from, to };
    },
    [reach],
  );

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const x = axisOf(size);
      const at = selected === null ? -1 : rows.indexOf(selected);
      if (at >= 0) pen.rect({ x: 0, y: MARGIN.top + at * LINE, width: size.width, height: LINE }, colours.grid);
      const steps = Math.max(1, Math.ceil((2 * x.high * 44) / (x.to - x.from)));
      for (let power = -Math.floor(x.high / steps) * steps; power <= x.high; power += steps) {
        const across = place(x, power);
        pen.line(
          [
            { x: across, y: MARGIN.top - 4 },
            { x: across, y: MARGIN.top + rows.length * LINE },
          ],
          { colour: power === 0 ? colours.soft : colours.grid },
        );
        const label = power < 0 ? `1/${2 ** -power}` : `${2 ** power}×`;
        pen.text(label, { x: across, y: MARGIN.top - 13 }, { colour: colours.soft, align: 'center' });
      }
      const one = place(x, 0);
      pen.text('← slower', { x: one - 12, y: 9 }, { colour: colours.clipped, align: 'right', bold: true });
      pen.text('faster →', { x: one + 12, y: 9 }, { colour: colours.reference, bold: true });
      rows.forEach((row, i) => {
        const y = MARGIN.top + (i + 0.5) * LINE;
        const letters = Math.floor((x.from - NUMBER_PIXELS - 14) / LETTER_PIXELS);
        pen.text(
          shortened(table.name(row), letters),
          { x: x.from - NUMBER_PIXELS - 8, y },
          { colour: colours.ink, align: 'right', bold: i === at },
        );
        const value = speedup[row];
        if (!(value > 0)) {
          pen.text(missing(table, row), { x: one + 6, y }, { colour: colours.soft });
          return;
        }
        const end = place(x, Math.max(x.low, Math.min(x.high, Math.log2(value))));
        const faster = value >= 1;
        const bar = { x: Math.min(one, end), y: y - BAR / 2, width: Math.max(1, Math.abs(end - one)), height: BAR };
        pen.rect(bar, faster ? colours.reference : colours.clipped);
        pen.text(
          speedupText(value),
          { x: end + (faster ? 5 : -5), y },
          { colour: colours.ink, align: faster ? 'left' : 'right' },
        );
      });
    },
    [axisOf, table, rows, speedup, selected],
  );

  const indexAt = useCallback((at: Point): number => Math.floor((at.y - MARGIN.top) / LINE), []);
  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const i = indexAt(at);
      const row = rows[i];
      if (row === undefined) return null;
      const x = axisOf(size);
      const value = speedup[row];
      const [before, after] = [
        table.figures('reference', 'total_us')[row],
        table.figures('quantized', 'total_us')[row],
      ];
      return {
        title: table.name(row),
        lines: value > 0 ? [speedupText(value), `${timeText(before)} → ${timeText(after)}`] : [missing(table, row)],
        at: { x: place(x, value > 0 ? Math.log2(value) : 0), y: MARGIN.top + (i + 0.5) * LINE },
      };
    },
    [axisOf, indexAt, table, rows, speedup],
  );

  return (
    <Chart
      title={title}
      description={
        rows.map((row) => `${table.name(row)} ${speedupText(speedup[row])}`).join(', ') || 'No op is chosen.'
      }
      fileName={fileName}
      height={height}
      testId="speedup-bars"
      draw={draw}
      read={read}
      step={{ x: 12, y: LINE }}
      onPick={(at) => rows[indexAt(at)] !== undefined && onPick(rows[indexAt(at)])}
      table={() => ({
        header: ['op', 'type', 'speed-up'],
        rows: rows.map((row) => [table.name(row), table.type(row), csvNumber(speedup[row])]),
      })}
    />
  );
}

/** Why an op has no speed-up. */
function missing(table: ProfileTable, row: number): string {
  if (Number.isNaN(table.figures('reference', 'total_us')[row])) return 'quantized model alone';
  return Number.isNaN(table.figures('quantized', 'total_us')[row]) ? 'reference alone' : 'too short to tell';
}
