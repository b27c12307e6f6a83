import { type BoxId, boxOfGroup, groupOfBox, isGroup } from './ids';
import type { GraphModel } from './model';

export type KeyAction =
  | { kind: 'select'; id: BoxId | null }
  | { kind: 'toggle'; group: number }
  | { kind: 'zoom'; factor: number }
  | { kind: 'pan'; dx: number; dy: number }
  | { kind: 'fit' };

const ZOOM_FACTOR = 1.25;
const PAN_PIXELS = 80;
const PAN: Record<string, readonly [number, number]> = {
  ArrowUp: [0, -PAN_PIXELS],
  ArrowDown: [0, PAN_PIXELS],
  ArrowLeft: [-PAN_PIXELS, 0],
  ArrowRight: [PAN_PIXELS, 0],
};

/** What a key does in the graph: arrows follow the data or walk along siblings, with Shift they move the view. */
export function actionOfKey(
  key: string,
  shift: boolean,
  model: GraphModel,
  selected: BoxId | null,
  isShown: (id: BoxId) => boolean,
): KeyAction | null {
  if (key in PAN && shift) return { kind: 'pan', dx: PAN[key][0], dy: PAN[key][1] };
  switch (key) {
    case 'ArrowDown':
    case 'ArrowUp':
      return selectAction(along(model, selected, key === 'ArrowDown', isShown));
    case 'ArrowRight':
    case 'ArrowLeft':
      return selectAction(sibling(model, selected, key === 'ArrowRight' ? 1 : -1));
    case 'Enter':
    case ' ':
      return selected !== null && isGroup(selected) ? { kind: 'toggle', group: groupOfBox(selected) } : null;
    case 'Escape': {
      if (selected === null) return null;
      const parent = model.parentOf(selected);
      return { kind: 'select', id: parent < 0 ? null : boxOfGroup(parent) };
    }
    case '+':
    case '=':
      return { kind: 'zoom', factor: ZOOM_FACTOR };
    case '-':
      return { kind: 'zoom', factor: 1 / ZOOM_FACTOR };
    case '0':
    case 'f':
      return { kind: 'fit' };
    default:
      return null;
  }
}

const selectAction = (id: BoxId | undefined): KeyAction | null => (id === undefined ? null : { kind: 'select', id });

function sibling(model: GraphModel, selected: BoxId | null, step: number): BoxId | undefined {
  const siblings = model.childrenOf(selected === null ? -1 : model.parentOf(selected));
  if (selected === null) return siblings[0];
  return siblings[(siblings.indexOf(selected) + step + siblings.length) % siblings.length];
}

/** The box that shows the next op along the data: its group, where that is closed. */
function along(
  model: GraphModel,
  selected: BoxId | null,
  forward: boolean,
  isShown: (id: BoxId) => boolean,
): BoxId | undefined {
  if (selected === null) return model.childrenOf()[0];
  const inside = isGroup(selected) ? new Set(model.nodesIn(groupOfBox(selected))) : new Set([selected]);
  for (const node of inside) {
    for (const next of forward ? model.outputsOf(node) : model.inputsOf(node)) {
      if (inside.has(next)) continue;
      if (isShown(next)) return next;
      const group = model.ancestorsOf(next).find((g) => isShown(boxOfGroup(g)));
      if (group !== undefined && boxOfGroup(group) !== selected) return boxOfGroup(group);
    }
  }
  return undefined;
}
