import { boxOfGroup } from './ids';
import type { BoxWidths } from './layout';
import type { GraphModel } from './model';
import { FONT, LABEL_PIXELS, VALUE_PIXELS } from './painter';

const NARROWEST_NODE = 72;
const NARROWEST_GROUP = 148;
const WIDEST = 340;
/** Widths are multiples of this: boxes with nearly the same label share a cached layout. */
const GRID = 8;

/** How wide the boxes must be for their labels, as this browser's fonts are. */
export function boxWidths(model: GraphModel): BoxWidths {
  const context = document.createElement('canvas').getContext('2d')!;
  const known = new Map<string, number>();
  const widthOf = (text: string): number => {
    let width = known.get(text);
    if (width === undefined) known.set(text, (width = context.measureText(text).width));
    return width;
  };
  const onGrid = (width: number, least: number): number =>
    Math.min(WIDEST, Math.ceil(Math.max(least, width) / GRID) * GRID);
  context.font = `600 ${LABEL_PIXELS}px ${FONT}`;
  const nodes = Float32Array.from({ length: model.nodeCount }, (_, i) =>
    onGrid(widthOf(model.label(i)) + 22, NARROWEST_NODE),
  );
  const labels = Array.from({ length: model.groupCount }, (_, g) => widthOf(`▸ ${model.label(boxOfGroup(g))}`) + 20);
  known.clear();
  context.font = `${VALUE_PIXELS}px ${FONT}`;
  // The second line holds the longest value that any metric shows.
  const groups = Float32Array.from(labels, (width, g) =>
    onGrid(Math.max(width, widthOf(`${model.opCount[g]} ops · worst −00.0 dB`) + 18), NARROWEST_GROUP),
  );
  return { nodes, groups };
}
