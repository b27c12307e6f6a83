import type { Point, Rect } from './camera';
import type { BoxId } from './ids';
import { HEADER, type Layout } from './layout';

/** Open groups that are narrower than this on the screen are drawn as one box. */
const SMALLEST_OPEN_PIXELS = 14;

export interface Visible {
  /** Boxes to fill: ops and closed groups, and open groups too small to look into. */
  leaves: number[];
  /** Open groups, the outer ones first. */
  containers: number[];
}

/** A layout that can be searched: by id, by place, and for what a camera sees. */
export class Scene {
  private readonly indexById = new Map<BoxId, number>();
  private readonly childrenByBox: number[][];
  private readonly edgesByOwner = new Map<number, number[]>();
  private readonly portalsByBox = new Map<number, number[]>();
  private readonly top: number[] = [];

  constructor(readonly layout: Layout) {
    const { id, parent, edges, portals } = layout;
    this.childrenByBox = Array.from(id, () => []);
    for (let i = 0; i < id.length; i++) {
      this.indexById.set(id[i], i);
      (parent[i] < 0 ? this.top : this.childrenByBox[parent[i]]).push(i);
    }
    edges.owner.forEach((owner, e) => push(this.edgesByOwner, owner, e));
    portals.at.forEach((at, p) => push(this.portalsByBox, at, portals.from[p]));
  }

  indexOf(id: BoxId): number | undefined {
    return this.indexById.get(id);
  }

  rect(index: number): Rect {
    const { x, y, width, height } = this.layout;
    return { x: x[index], y: y[index], width: width[index], height: height[index] };
  }

  rectOf(id: BoxId): Rect | null {
    const index = this.indexById.get(id);
    return index === undefined ? null : this.rect(index);
  }

  /** Edges inside a box, or at the top level for −1. */
  edgesIn(owner: number): readonly number[] {
    return this.edgesByOwner.get(owner) ?? [];
  }

  /** The boxes whose edges arrive at this one through a portal. */
  portalsAt(index: number): readonly number[] {
    return this.portalsByBox.get(index) ?? [];
  }

  /** The innermost box at a point. */
  hit(point: Point): BoxId | null {
    const { id, open, x, y, width, height } = this.layout;
    const search = (boxes: readonly number[]): number | null => {
      for (const i of boxes) {
        if (point.x < x[i] || point.y < y[i] || point.x > x[i] + width[i] || point.y > y[i] + height[i]) continue;
        if (open[i] && point.y > y[i] + HEADER) return search(this.childrenByBox[i]) ?? id[i];
        return id[i];
      }
      return null;
    };
    return search(this.top);
  }

  visible(view: Rect, zoom: number): Visible {
    const { open, depth, x, y, width, height } = this.layout;
    const leaves: number[] = [];
    const containers: number[] = [];
    const waiting = [...this.top];
    while (waiting.length) {
      const i = waiting.pop()!;
      if (x[i] > view.x + view.width || y[i] > view.y + view.height) continue;
      if (x[i] + width[i] < view.x || y[i] + height[i] < view.y) continue;
      if (open[i] && width[i] * zoom > SMALLEST_OPEN_PIXELS) {
        containers.push(i);
        for (const child of this.childrenByBox[i]) waiting.push(child);
      } else leaves.push(i);
    }
    containers.sort((a, b) => depth[a] - depth[b]);
    return { leaves, containers };
  }
}

function push(map: Map<number, number[]>, key: number, value: number): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
