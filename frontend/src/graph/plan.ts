import { type BoxId, groupOfBox, isGroup } from './ids';
import type { GraphModel } from './model';
import { splitPortals } from './portals';

/** A box that is visible while some groups are open; `parent` is the index of the box around it, −1 at the top level. */
export interface PlannedBox {
  id: BoxId;
  parent: number;
  depth: number;
  open: boolean;
  children: number[];
}

/** The boxes inside one open group (`owner` −1: the top level) and the edges between them, all as box indices. */
export interface Level {
  owner: number;
  children: number[];
  sources: number[];
  targets: number[];
}

/** An edge that is drawn as a chip beside its target, because a line would cross everything in between. */
export interface Portal {
  at: number;
  from: number;
}

export interface Plan {
  boxes: PlannedBox[];
  /** An outer level comes before those inside it. */
  levels: Level[];
  portals: Portal[];
}

/** What is visible when these groups are open, without any position. */
export function plan(model: GraphModel, open: ReadonlySet<number>): Plan {
  const boxes: PlannedBox[] = [];
  const shownBy = new Int32Array(model.nodeCount);
  const hide = (group: number, box: number): void => {
    for (const id of model.childrenOf(group)) {
      if (isGroup(id)) hide(groupOfBox(id), box);
      else shownBy[id] = box;
    }
  };
  const show = (group: number, parent: number, depth: number): number[] => {
    const children: number[] = [];
    for (const id of model.childrenOf(group)) {
      const index = boxes.length;
      const isOpen = isGroup(id) && open.has(groupOfBox(id));
      const box: PlannedBox = { id, parent, depth, open: isOpen, children: [] };
      boxes.push(box);
      children.push(index);
      if (isOpen) box.children = show(groupOfBox(id), index, depth + 1);
      else if (isGroup(id)) hide(groupOfBox(id), index);
      else shownBy[id] = index;
    }
    return children;
  };
  const top = show(-1, -1, 0);

  const edges = liftEdges(model, boxes, shownBy);
  const levels: Level[] = [];
  const portals: Portal[] = [];
  const emit = (owner: number, children: number[]): void => {
    const { sources, targets } = edges.get(owner) ?? { sources: [], targets: [] };
    const split = splitPortals(children, sources, targets);
    portals.push(...split.portals);
    levels.push({ owner, children, sources: split.sources, targets: split.targets });
    for (const child of children) if (boxes[child].open) emit(child, boxes[child].children);
  };
  emit(-1, top);
  return { boxes, levels, portals };
}

/** Every edge moved up to the level where its two ends are siblings, each pair once; by the index of the owner. */
function liftEdges(
  model: GraphModel,
  boxes: readonly PlannedBox[],
  shownBy: Int32Array,
): Map<number, { sources: number[]; targets: number[] }> {
  const levels = new Map<number, { sources: number[]; targets: number[] }>();
  const seen = new Set<number>();
  for (let e = 0; e < model.source.length; e++) {
    let a = shownBy[model.source[e]];
    let b = shownBy[model.target[e]];
    while (boxes[a].depth > boxes[b].depth) a = boxes[a].parent;
    while (boxes[b].depth > boxes[a].depth) b = boxes[b].parent;
    while (a !== b && boxes[a].parent !== boxes[b].parent) {
      a = boxes[a].parent;
      b = boxes[b].parent;
    }
    if (a === b || seen.has(a * boxes.length + b)) continue;
    seen.add(a * boxes.length + b);
    const owner = boxes[a].parent;
    let level = levels.get(owner);
    if (!level) levels.set(owner, (level = { sources: [], targets: [] }));
    level.sources.push(a);
    level.targets.push(b);
  }
  return levels;
}
