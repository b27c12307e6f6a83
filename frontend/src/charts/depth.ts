import { isGroup } from '../graph/ids';
import type { GraphModel } from '../graph/model';
import { isWorse } from '../colour/scale';
import type { GraphValues } from '../graph/values';

/** A number in a name, but for those of conv2d and the like. */
const NUMBER = /\d+(?!\d*d(?![A-Za-z]))/g;

/** A model's values as a table: layers from first to last, and the roles that ops play in them. */
export interface DepthTable {
  layers: string[];
  roles: string[];
  /** The node with the worst value per role and layer, role after role; −1 where there is none. */
  nodes: Int32Array;
}

/** A bucket of siblings, as "layers 17–33", or ops that were cut out of a scope, as "MatMul×3 Add": no scope itself. */
const NO_SCOPE = /\d+\s*–\s*\d+|×\d/;
const MOST_ROLES = 28;

/** Where an op stands: its layer is the first numbered scope around it, else the outermost scope. */
function placeOf(model: GraphModel, node: number): { layer: string; role: string } {
  const names = model
    .ancestorsOf(node)
    .reverse()
    .map((group) => model.columns.groups.name[group]);
  // Blocks that were cut from a model without names repeat nothing but types of ops.
  if (model.columns.grouping === 'cuts') return { layer: names.at(-1) ?? model.label(node), role: model.opType(node) };
  const groups = names.filter((name) => !NO_SCOPE.test(name));
  const numbered = groups.findIndex((name) => /\d/.test(name));
  const at = numbered < 0 ? 0 : numbered;
  return {
    layer: groups.slice(0, at + 1).join('/') || model.label(node),
    // The number of a sibling inside a layer is no role of its own.
    role: [...groups.slice(at + 1), model.label(node).replace(/(_\d+)+$/, '')].join('/').replace(NUMBER, '·'),
  };
}

export function depthTable(model: GraphModel, values: GraphValues): DepthTable {
  const nodes = Array.from({ length: model.nodeCount }, (_, node) => node).filter(
    (node) => !Number.isNaN(values.of(node)),
  );
  const places = nodes.map((node) => placeOf(model, node));
  const layers = [...new Set(places.map(({ layer }) => layer))];
  let roleOf = (i: number): string => places[i].role;
  if (new Set(places.map(({ role }) => role)).size > MOST_ROLES) roleOf = (i) => model.opType(nodes[i]);
  const roles = [...new Set(nodes.map((_, i) => roleOf(i)))].slice(0, MOST_ROLES);
  const layerIndex = new Map(layers.map((layer, i) => [layer, i]));
  const roleIndex = new Map(roles.map((role, i) => [role, i]));
  const table = new Int32Array(layers.length * roles.length).fill(-1);
  nodes.forEach((node, i) => {
    const role = roleIndex.get(roleOf(i));
    if (role === undefined || isGroup(node)) return;
    const cell = role * layers.length + layerIndex.get(places[i].layer)!;
    if (table[cell] < 0 || isWorse(values.better, values.of(node), values.of(table[cell]))) table[cell] = node;
  });
  return { layers, roles, nodes: table };
}
