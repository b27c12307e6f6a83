import { useCallback, useMemo } from 'react';
import { alignedText, numberText } from '../app/text';
import { type Axis, place, ticks } from '../charts/axis';
import { Chart, type Reading } from '../charts/Chart';
import type { ChartColours } from '../charts/colours';
import type { Pen } from '../charts/pen';
import type { Point, Rect, Size } from '../graph/camera';
import { shortened } from '../graph/painter';
import { csvNumber } from '../table/csv';
import type { Effect } from './effects';

const LINE = 21;
const MARGIN = { right: 18, top: 46, bottom: 6 };
const LABEL_PART = 0.34;
const LETTER_PIXELS = 6.2;
const CAP = 4;

interface Props {
  title: string;
  effects: readonly Effect[];
  /** What the damage is measured as; "" while that is not known. */
  damageName: string;
  fileName: string;
  selected: number | null;
  onPick(index: number): void;
}

/** The damage that each op does alone as a dot, with its interval as a line through it. */
export function EffectChart({ title, effects, damageName, fileName, selected, onPick }: Props) {
  const height = effects.length * LINE + MARGIN.top + MARGIN.bottom;
  const [low, high] = useMemo(() => {
    const ends = effects.flatMap((effect) => [effect.alone, effect.low, effect.high]).filter(Number.isFinite);
    return [Math.min(0, ...ends), Math.max(...ends, 0) || 1];
  }, [effects]);
  const text = useMemo(() => alignedText(Math.max(...effects.map(({ alone }) => alone))), [effects]);

  const frame = useCallback(
    (size: Size): { plot: Rect; x: Axis } => {
      const left = Math.min(230, size.width * LABEL_PART);
      const plot = {
        x: left,
        y: MARGIN.top,
        width: size.width - left - MARGIN.right,
        height: size.height - MARGIN.top - MARGIN.bottom,
      };
      return { plot, x: { low, high, from: plot.x, to: plot.x + plot.width } };
    },
    [low, high],
  );
  const middle = (index: number): number => MARGIN.top + (index + 0.5) * LINE;

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours): void => {
      const { plot, x } = frame(size);
      const upright = (value: number, top: number, bottom: number, colour: string, width = 1): void => {
        const at = place(x, value);
        pen.line(
          [
            { x: at, y: top },
            { x: at, y: bottom },
          ],
          { colour, width },
        );
      };
      if (selected !== null)
        pen.rect({ x: 0, y: MARGIN.top + selected * LINE, width: size.width, height: LINE }, colours.grid);
      // The numbers are above: below, they would be out of sight of the ops that matter most.
      for (const value of ticks(low, high, Math.max(2, plot.width / 90))) {
        upright(value, plot.y - 4, plot.y + plot.height, colours.grid);
        pen.text(numberText(value), { x: place(x, value), y: plot.y - 13 }, { colour: colours.soft, align: 'center' });
      }
      pen.text(
        ['damage alone', damageName].filter(Boolean).join(': '),
        { x: plot.x + plot.width, y: 9 },
        { colour: colours.soft, align: 'right', bold: true },
      );
      effects.forEach((effect, i) => {
        const y = middle(i);
        const name = shortened(effect.name, Math.floor((plot.x - 14) / LETTER_PIXELS));
        pen.text(name, { x: plot.x - 8, y }, { colour: colours.ink, align: 'right' });
        const known = !Number.isNaN(effect.low);
        if (known) {
          const ends = [effect.low, effect.high].map((value) => ({ x: place(x, value), y }));
          pen.line(ends, { colour: colours.reference, width: 1.6 });
          for (const end of [effect.low, effect.high]) upright(end, y - CAP, y + CAP, colours.reference, 1.6);
        }
        pen.circle({ x: place(x, effect.alone), y }, 4, known ? colours.reference : colours.background, {
          colour: colours.reference,
          width: 1.4,
        });
      });
    },
    [frame, effects, low, high, selected, damageName],
  );

  const indexAt = useCallback((at: Point): number => Math.floor((at.y - MARGIN.top) / LINE), []);
  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const effect = effects[indexAt(at)];
      if (!effect) return null;
      const { x } = frame(size);
      return {
        title: effect.name,
        lines: [
          `damage alone ${text(effect.alone)}`,
          ...(Number.isNaN(effect.low) ? [] : [`95 %: ${text(effect.low)} … ${text(effect.high)}`]),
          ...(effect.place === '–' ? [] : [`place ${effect.place}`]),
        ],
        at: { x: place(x, effect.alone), y: middle(indexAt(at)) },
      };
    },
    [effects, frame, indexAt, text],
  );

  return (
    <Chart
      title={title}
      description={effects.map(({ name, alone }) => `${name} ${text(alone)}`).join(', ')}
      fileName={fileName}
      height={height}
      testId="effect-chart"
      draw={draw}
      read={read}
      step={{ x: 12, y: LINE }}
      onPick={(at) => effects[indexAt(at)] && onPick(indexAt(at))}
      table={() => ({
        header: ['name', 'damage alone', 'low', 'high', 'gain in float', 'place'],
        rows: effects.map((e) => [e.name, ...[e.alone, e.low, e.high, e.gain].map(csvNumber), e.place]),
      })}
    />
  );
}
