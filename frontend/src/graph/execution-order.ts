import type { Edge } from '@dagrejs/dagre';

/** What of dagre's graph this step reads and writes, while it orders the boxes of each rank. */
interface RankedGraph {
  nodes(): string[];
  node(name: string): { rank?: number; order?: number; dummy?: string; edgeObj?: Edge };
  predecessors(name: string): string[] | void;
}

/** How many more crossings an order by execution may have than dagre's, so that siblings 0, 1, 2 … stand in a row. */
const TOLERANCE = 1.25;
const ALLOWED = 4;

/**
 * Order the boxes of each rank by execution, unless dagre's order crosses far fewer lines.
 *
 * dagre minimizes crossings alone, which puts experts 48–55 before experts 0–7. Boxes are named by their position in
 * execution order; a dummy, which stands for a line that skips a rank, goes where the line comes from.
 */
export function preferExecutionOrder<G extends RankedGraph>(graph: G, order: (graph: G) => void): void {
  order(graph);
  const names = graph.nodes();
  const found = names.map((name) => graph.node(name).order ?? 0);
  const before = crossings(graph, names);
  orderByExecution(graph, names);
  if (crossings(graph, names) <= before * TOLERANCE + ALLOWED) return;
  names.forEach((name, i) => (graph.node(name).order = found[i]));
}

function orderByExecution(graph: RankedGraph, names: readonly string[]): void {
  const key = (name: string): [number, number] => {
    const { dummy, edgeObj } = graph.node(name);
    return dummy && edgeObj ? [Number(edgeObj.v) + 0.5, Number(edgeObj.w)] : [Number(name), 0];
  };
  for (const rank of byRank(graph, names)) {
    const keyed = rank.map((name) => ({ name, key: key(name) }));
    keyed.sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1]);
    keyed.forEach(({ name }, i) => (graph.node(name).order = i));
  }
}

function byRank(graph: RankedGraph, names: readonly string[]): string[][] {
  const ranks: string[][] = [];
  for (const name of names) (ranks[graph.node(name).rank ?? 0] ??= []).push(name);
  return ranks.filter(Boolean);
}

/** How many pairs of lines cross between neighbouring ranks: inversions, counted with a Fenwick tree. */
function crossings(graph: RankedGraph, names: readonly string[]): number {
  let total = 0;
  for (const rank of byRank(graph, names)) {
    const ordered = [...rank].sort((a, b) => graph.node(a).order! - graph.node(b).order!);
    const above = ordered.map((name) =>
      (graph.predecessors(name) ?? []).map((p) => graph.node(p).order ?? 0).sort((a, b) => a - b),
    );
    const size = 1 + above.reduce((most, orders) => Math.max(most, orders.at(-1) ?? 0), 0);
    const tree = new Int32Array(size + 1);
    let seen = 0;
    for (const orders of above) {
      for (const order of orders) {
        let notRight = 0;
        for (let k = order + 1; k > 0; k -= k & -k) notRight += tree[k];
        total += seen - notRight;
      }
      for (const order of orders) {
        for (let k = order + 1; k <= size; k += k & -k) tree[k]++;
        seen++;
      }
    }
  }
  return total;
}
