import { useCallback, useMemo } from 'react';
import { useDark } from '../app/use-dark';
import { ramp } from '../colour/ramp';
import { ScaleBar } from '../colour/ScaleBar';
import type { Point, Rect, Size } from '../graph/camera';
import type { GraphModel } from '../graph/model';
import { shortened } from '../graph/painter';
import type { GraphValues } from '../graph/values';
import { csvNumber } from '../table/csv';
import { Chart, type Reading } from './Chart';
import type { ChartColours } from './colours';
import { depthTable } from './depth';
import type { Pen } from './pen';

const LINE = 20;
const MARGIN = { left: 168, right: 8, top: 4, bottom: 24 };
const LETTERS = 25;
const WIDEST_CELL = 46;

/** The end of a role says more than its beginning, which many share. */
const ending = (role: string): string => (role.length <= LETTERS ? role : `…${role.slice(1 - LETTERS)}`);

interface Props {
  title: string;
  model: GraphModel;
  values: GraphValues;
  fileName: string;
  onPick(node: number): void;
}

/** The worst value of every role in every layer: a model of hundreds of layers in one picture, first layer left. */
export function DepthMap({ title, model, values, fileName, onPick }: Props) {
  const dark = useDark();
  const table = useMemo(() => depthTable(model, values), [model, values]);
  const { layers, roles, nodes } = table;
  const height = roles.length * LINE + MARGIN.top + MARGIN.bottom;

  const plotOf = useCallback(
    (size: Size): Rect => ({
      x: MARGIN.left,
      y: MARGIN.top,
      width: Math.min(size.width - MARGIN.left - MARGIN.right, layers.length * WIDEST_CELL),
      height: roles.length * LINE,
    }),
    [layers, roles],
  );

  const draw = useCallback(
    (pen: Pen, size: Size, colours: ChartColours, dark: boolean): void => {
      const plot = plotOf(size);
      const cell = plot.width / layers.length;
      const steps = ramp('quality', dark);
      roles.forEach((role, line) => {
        const y = plot.y + line * LINE;
        pen.text(ending(role), { x: plot.x - 8, y: y + LINE / 2 }, { colour: colours.ink, align: 'right' });
        pen.line(
          [
            { x: plot.x, y: y + LINE - 0.5 },
            { x: plot.x + plot.width, y: y + LINE - 0.5 },
          ],
          { colour: colours.grid },
        );
        layers.forEach((_, column) => {
          const node = nodes[line * layers.length + column];
          if (node < 0) return;
          const width = Math.max(1, cell - (cell > 6 ? 1.5 : cell > 3 ? 0.6 : 0));
          pen.rect({ x: plot.x + column * cell, y: y + 1, width, height: LINE - 3 }, steps[values.step(node)]);
        });
      });
      const bottom = plot.y + plot.height + 12;
      pen.text(shortened(layers[0] ?? '', 30), { x: plot.x, y: bottom }, { colour: colours.soft });
      if (layers.length > 1 && plot.width > 320) {
        const text = `${shortened(layers.at(-1)!, 30)} · ${layers.length} layers`;
        pen.text(text, { x: plot.x + plot.width, y: bottom }, { colour: colours.soft, align: 'right' });
      }
    },
    [plotOf, layers, roles, nodes, values],
  );

  const nodeAt = useCallback(
    (at: Point, size: Size): number => {
      const plot = plotOf(size);
      const column = Math.floor(((at.x - plot.x) / plot.width) * layers.length);
      const line = Math.floor((at.y - plot.y) / LINE);
      if (column < 0 || column >= layers.length || line < 0 || line >= roles.length) return -1;
      return nodes[line * layers.length + column];
    },
    [plotOf, layers, roles, nodes],
  );

  const read = useCallback(
    (at: Point, size: Size): Reading | null => {
      const node = nodeAt(at, size);
      if (node < 0) return null;
      return { title: model.nameOf(node), lines: [model.opType(node), values.text(values.of(node))], at };
    },
    [nodeAt, model, values],
  );

  return (
    <Chart
      title={title}
      description={`${roles.length} roles in ${layers.length} layers; each cell is the worst op there.`}
      fileName={fileName}
      height={height}
      testId="depth-map"
      controls={
        <ScaleBar
          ramp={ramp('quality', dark)}
          worst={values.text(values.scale.worst)}
          best={values.text(values.scale.best)}
        />
      }
      draw={draw}
      read={read}
      step={{ x: 10, y: LINE }}
      onPick={(at, size) => {
        const node = nodeAt(at, size);
        if (node >= 0) onPick(node);
      }}
      table={() => ({
        header: ['role', 'layer', 'op', 'value'],
        rows: Array.from(nodes.keys())
          .filter((cell) => nodes[cell] >= 0)
          .map((cell) => [
            roles[Math.floor(cell / layers.length)],
            layers[cell % layers.length],
            model.nameOf(nodes[cell]),
            csvNumber(values.of(nodes[cell])),
          ]),
      })}
    />
  );
}
