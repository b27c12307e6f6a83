import { Graph, layout } from '@dagrejs/dagre';
import { preferExecutionOrder } from './execution-order';

/** The boxes of one level in execution order, and the edges between them by position in that order. */
export interface LevelShape {
  widths: number[];
  heights: number[];
  sources: number[];
  targets: number[];
}

/** Corners of the boxes and points of the edges (x, y alternating), from the level's own top left corner. */
export interface Arrangement {
  x: number[];
  y: number[];
  edges: number[][];
  width: number;
  height: number;
}

const NODE_GAP = 18;
const EDGE_GAP = 10;
const RANK_GAP = 30;

/** A layered drawing of one level. */
export function arrange(shape: LevelShape): Arrangement {
  const count = shape.widths.length;
  if (!shape.sources.length) return arrangeInRows(shape);
  const graph = new Graph({ multigraph: false, compound: false });
  graph.setGraph({ rankdir: 'TB', nodesep: NODE_GAP, edgesep: EDGE_GAP, ranksep: RANK_GAP, ranker: 'tight-tree' });
  for (let i = 0; i < count; i++) graph.setNode(String(i), { width: shape.widths[i], height: shape.heights[i] });
  shape.sources.forEach((source, e) => graph.setEdge(String(source), String(shape.targets[e]), {}));
  layout(graph, { customOrder: preferExecutionOrder });

  const x: number[] = [];
  const y: number[] = [];
  let left = Infinity;
  let top = Infinity;
  let right = -Infinity;
  let bottom = -Infinity;
  for (let i = 0; i < count; i++) {
    const node = graph.node(String(i));
    x.push(node.x - shape.widths[i] / 2);
    y.push(node.y - shape.heights[i] / 2);
    left = Math.min(left, x[i]);
    top = Math.min(top, y[i]);
    right = Math.max(right, x[i] + shape.widths[i]);
    bottom = Math.max(bottom, y[i] + shape.heights[i]);
  }
  const edges = shape.sources.map((source, e) => {
    const points: { x: number; y: number }[] = graph.edge(String(source), String(shape.targets[e])).points ?? [];
    for (const point of points) {
      left = Math.min(left, point.x);
      right = Math.max(right, point.x);
    }
    return points.flatMap((point) => [point.x, point.y]);
  });
  return {
    x: x.map((value) => value - left),
    y: y.map((value) => value - top),
    edges: edges.map((points) => points.map((value, k) => value - (k % 2 ? top : left))),
    width: right - left,
    height: bottom - top,
  };
}

/** Boxes that no edge joins, line by line in a shape near a square. */
function arrangeInRows(shape: LevelShape): Arrangement {
  const area = shape.widths.reduce((sum, width, i) => sum + (width + NODE_GAP) * (shape.heights[i] + NODE_GAP), 0);
  const limit = Math.max(Math.sqrt(area) * 1.3, ...shape.widths);
  const x: number[] = [];
  const y: number[] = [];
  let [column, row, rowHeight, width] = [0, 0, 0, 0];
  shape.widths.forEach((w, i) => {
    if (column > 0 && column + w > limit) {
      row += rowHeight + NODE_GAP;
      column = rowHeight = 0;
    }
    x.push(column);
    y.push(row);
    width = Math.max(width, column + w);
    rowHeight = Math.max(rowHeight, shape.heights[i]);
    column += w + NODE_GAP;
  });
  return { x, y, edges: [], width, height: row + rowHeight };
}
