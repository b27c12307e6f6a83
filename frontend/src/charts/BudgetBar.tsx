import { useCallback, useMemo } from 'react';
import type { Budget } from '../api/types';
import { numberText, percentText } from '../app/text';
import type { Point, Size } from '../graph/camera';
import { csvNumber } from '../table/csv';
import { place } from './axis';
import { budgetParts, stacked } from './budget';
import { Chart, type Reading } from './Chart';
import type { ChartColours } from './colours';
import type { Pen } from './pen';

const BAR = 26;
const LINE = 19;
const MARGIN = 8;

interface Props {
  budget: Budget;
  fileName: string;
}

/** The cumulative error of an op split by its causes: a bar, and the parts in figures. */
export function BudgetBar({ budget, fileName }: Props) {
  const parts = useMemo(() => budgetParts(budget), [budget]);
  const places = useMemo(() => stacked(parts.map(({ share }) => share)), [parts]);
  const height = BAR + 2 * MARGIN + parts.length * LINE + 6;

  const axisOf = useCallback(
    (size: Size) => ({
      low: Math.min(0, ...places.map(({ from }) => from)),
      high: Math.max(1, ...places.map(({ to }) => to)),
      from: 2,
      to: size.width - 2,
    }),
    [places],
  );

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const axis = axisOf(size);
      pen.rect({ x: axis.from, y: MARGIN, width: axis.to - axis.from, height: BAR }, colours.grid);
      places.forEach(({ from, to }, i) => {
        const [x0, x1] = [place(axis, from), place(axis, to)];
        if (x1 - x0 > 0.4)
          pen.rect({ x: x0, y: MARGIN, width: Math.max(1, x1 - x0 - 1), height: BAR }, colours.parts[i]);
      });
      if (axis.low < 0) {
        const x = place(axis, 0);
        pen.line(
          [
            { x, y: MARGIN - 4 },
            { x, y: MARGIN + BAR + 4 },
          ],
          { colour: colours.ink, width: 1.5 },
        );
      }
      parts.forEach(({ name, meaning, share, mse }, i) => {
        const y = BAR + 2 * MARGIN + 10 + i * LINE;
        pen.rect({ x: 2, y: y - 5, width: 10, height: 10 }, colours.parts[i]);
        pen.text(name, { x: 19, y }, { colour: colours.ink, bold: true });
        if (size.width > 330) pen.text(meaning, { x: 82, y }, { colour: colours.soft });
        pen.text(percentText(share), { x: size.width - 72, y }, { colour: colours.ink, align: 'right' });
        pen.text(numberText(mse, 3), { x: size.width - 4, y }, { colour: colours.soft, align: 'right' });
      });
    },
    [axisOf, parts, places],
  );

  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const axis = axisOf(size);
      const line = Math.floor((at.y - BAR - 2 * MARGIN) / LINE);
      const i =
        line >= 0 ? line : places.findIndex(({ from, to }) => at.x >= place(axis, from) && at.x < place(axis, to));
      if (!parts[i]) return null;
      const { name, meaning, share, mse, energy } = parts[i];
      return {
        title: `${name}: ${percentText(share)}`,
        lines: [
          meaning,
          `${numberText(mse)} of MSE ${numberText(parts.reduce((sum, p) => sum + p.mse, 0))}`,
          `alone it would cost ${numberText(energy)}`,
        ],
        at: { x: (place(axis, places[i].from) + place(axis, places[i].to)) / 2, y: MARGIN + BAR / 2 },
      };
    },
    [axisOf, parts, places],
  );

  return (
    <Chart
      title="Error budget"
      description={parts.map(({ name, share }) => `${name} ${percentText(share)}`).join(', ')}
      fileName={fileName}
      height={height}
      testId="budget"
      draw={draw}
      read={read}
      step={{ x: 12, y: LINE }}
      table={() => ({
        header: ['part', 'share', 'mse', 'alone'],
        rows: parts.map(({ name, share, mse, energy }) => [name, csvNumber(share), csvNumber(mse), csvNumber(energy)]),
      })}
    />
  );
}
