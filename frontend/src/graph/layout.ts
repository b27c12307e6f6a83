import { type Arrangement, arrange, type LevelShape } from './arrange';
import { groupOfBox, isGroup } from './ids';
import type { GraphModel } from './model';
import { type Level, plan } from './plan';

export const NODE_HEIGHT = 34;
export const GROUP_HEIGHT = 50;
/** The strip at the top of an open group that holds its name. */
export const HEADER = 28;
const PADDING = 16;

/** Positions of all visible boxes, as arrays that can move between threads without a copy. */
export interface Layout {
  id: Int32Array;
  parent: Int32Array;
  depth: Uint8Array;
  open: Uint8Array;
  x: Float32Array;
  y: Float32Array;
  width: Float32Array;
  height: Float32Array;
  /** Edge e joins boxes from[e] and to[e] inside box owner[e], along points[start[e]] … points[start[e + 1] − 1]. */
  edges: { from: Int32Array; to: Int32Array; owner: Int32Array; start: Int32Array; points: Float32Array };
  portals: { at: Int32Array; from: Int32Array };
  totalWidth: number;
  totalHeight: number;
}

/** The widths that the labels of nodes and groups need, in pixels. */
export interface BoxWidths {
  nodes: Float32Array;
  groups: Float32Array;
}

/** Lays out a graph level by level. A level is arranged once for the same sizes and edges, wherever it occurs. */
export class LayoutEngine {
  private readonly arrangements = new Map<string, Arrangement>();

  constructor(
    private readonly model: GraphModel,
    private readonly widths: BoxWidths,
  ) {}

  /** The layout while these groups are open. */
  layout(open: ReadonlySet<number>): Layout {
    const { boxes, levels, portals } = plan(this.model, open);
    const width = new Float32Array(boxes.length);
    const height = new Float32Array(boxes.length);
    boxes.forEach(({ id }, i) => {
      width[i] = isGroup(id) ? this.widths.groups[groupOfBox(id)] : this.widths.nodes[id];
      height[i] = isGroup(id) ? GROUP_HEIGHT : NODE_HEIGHT;
    });
    const arranged = new Map<number, Arrangement>();
    // From the inside out: the size of an open group follows from what it holds.
    for (const level of [...levels].reverse()) {
      const found = this.arranged(level, width, height);
      arranged.set(level.owner, found);
      if (level.owner < 0) continue;
      width[level.owner] = Math.max(found.width + 2 * PADDING, width[level.owner]);
      height[level.owner] = found.height + HEADER + 2 * PADDING;
    }

    const x = new Float32Array(boxes.length);
    const y = new Float32Array(boxes.length);
    const from: number[] = [];
    const to: number[] = [];
    const owner: number[] = [];
    const start: number[] = [0];
    const points: number[] = [];
    for (const level of levels) {
      const found = arranged.get(level.owner)!;
      const inside = level.owner >= 0;
      // Contents that are narrower than the group's name stand in its middle.
      const left = inside ? x[level.owner] + (width[level.owner] - found.width) / 2 : 0;
      const top = inside ? y[level.owner] + HEADER + PADDING : 0;
      level.children.forEach((child, i) => {
        x[child] = left + found.x[i];
        y[child] = top + found.y[i];
      });
      level.sources.forEach((source, e) => {
        from.push(source);
        to.push(level.targets[e]);
        owner.push(level.owner);
        found.edges[e].forEach((value, k) => points.push(value + (k % 2 ? top : left)));
        start.push(points.length);
      });
    }
    const outermost = arranged.get(-1)!;
    return {
      id: Int32Array.from(boxes, (box) => box.id),
      parent: Int32Array.from(boxes, (box) => box.parent),
      depth: Uint8Array.from(boxes, (box) => Math.min(box.depth, 255)),
      open: Uint8Array.from(boxes, (box) => Number(box.open)),
      x,
      y,
      width,
      height,
      edges: {
        from: Int32Array.from(from),
        to: Int32Array.from(to),
        owner: Int32Array.from(owner),
        start: Int32Array.from(start),
        points: Float32Array.from(points),
      },
      portals: { at: Int32Array.from(portals, (p) => p.at), from: Int32Array.from(portals, (p) => p.from) },
      totalWidth: outermost.width,
      totalHeight: outermost.height,
    };
  }

  private arranged(level: Level, width: Float32Array, height: Float32Array): Arrangement {
    const position = new Map(level.children.map((child, i) => [child, i]));
    const shape: LevelShape = {
      widths: level.children.map((child) => width[child]),
      heights: level.children.map((child) => height[child]),
      sources: level.sources.map((source) => position.get(source)!),
      targets: level.targets.map((target) => position.get(target)!),
    };
    const key = [shape.widths, shape.heights, shape.sources, shape.targets].join('|');
    let found = this.arrangements.get(key);
    if (!found) this.arrangements.set(key, (found = arrange(shape)));
    return found;
  }
}

/** The buffers that move with a layout. */
export function buffersOf(layout: Layout): ArrayBuffer[] {
  const arrays = [
    layout.id,
    layout.parent,
    layout.depth,
    layout.open,
    layout.x,
    layout.y,
    layout.width,
    layout.height,
    ...Object.values(layout.edges),
    ...Object.values(layout.portals),
  ];
  return arrays.map((array) => array.buffer as ArrayBuffer);
}
