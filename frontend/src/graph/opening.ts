import { groupOfBox, isGroup } from './ids';
import type { GraphModel } from './model';

const FEWEST_BOXES = 8;

/** The groups that are open at first: the biggest ones, as long as there is hardly anything to see. */
export function initiallyOpen(model: GraphModel): Set<number> {
  const open = new Set<number>();
  let shown = model.childrenOf().filter(isGroup).map(groupOfBox);
  let boxes = model.childrenOf().length;
  while (boxes < FEWEST_BOXES && shown.length) {
    const biggest = shown.reduce((a, b) => (model.opCount[b] > model.opCount[a] ? b : a));
    const children = model.childrenOf(biggest);
    open.add(biggest);
    shown = [...shown.filter((g) => g !== biggest), ...children.filter(isGroup).map(groupOfBox)];
    boxes += children.length;
  }
  return open;
}

/** The groups to open with a group: those that are alone in it, since a box that holds one box says nothing. */
export function opensWith(model: GraphModel, group: number): number[] {
  const opened = [group];
  for (;;) {
    const children = model.childrenOf(opened.at(-1)!);
    if (children.length !== 1 || !isGroup(children[0])) return opened;
    opened.push(groupOfBox(children[0]));
  }
}
