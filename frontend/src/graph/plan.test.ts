import { describe, expect, test } from 'vitest';
import { boxOfGroup } from './ids';
import { LayoutEngine } from './layout';
import { type GraphColumns, GraphModel } from './model';
import { plan } from './plan';
import { longestPathRanks, splitPortals } from './portals';

/** A graph of nodes n0, n1 … in groups, with edges between them. */
function graph(group: number[], parent: number[], edges: [number, number][]): GraphModel {
  const names = group.map((_, i) => `n${i}`);
  const columns: GraphColumns = {
    grouping: 'scopes',
    ops: ['Conv'],
    nodes: { name: names, label: names, op: group.map(() => 0), group },
    groups: { name: parent.map((_, g) => `g${g}`), parent },
    edges: { src: edges.map(([a]) => a), dst: edges.map(([, b]) => b), tensor: edges.map(([a]) => `t${a}`) },
  };
  return new GraphModel(columns);
}

const chain = (count: number): [number, number][] => Array.from({ length: count - 1 }, (_, i) => [i, i + 1]);

describe('the model', () => {
  test('has children in execution order, groups where their first op is', () => {
    const model = graph([-1, 1, 0, 0, -1], [-1, -1], []);
    expect(model.childrenOf()).toEqual([0, boxOfGroup(1), boxOfGroup(0), 4]);
  });

  test('counts the ops of nested groups', () => {
    const model = graph([0, 1, 2, 2], [-1, 0, 1], []);
    expect([...model.opCount]).toEqual([4, 3, 2]);
    expect(model.ancestorsOf(3)).toEqual([2, 1, 0]);
    expect(model.nodesIn(1)).toEqual([1, 2, 3]);
  });
});

describe('a plan', () => {
  test('lifts edges to the level where their ends are siblings, each pair once', () => {
    const model = graph(
      [0, 0, 1, 1],
      [-1, -1],
      [
        [0, 1],
        [0, 2],
        [1, 3],
        [2, 3],
      ],
    );
    const { boxes, levels } = plan(model, new Set());
    expect(boxes.map(({ id }) => id)).toEqual([boxOfGroup(0), boxOfGroup(1)]);
    expect(levels).toHaveLength(1);
    expect([levels[0].sources, levels[0].targets]).toEqual([[0], [1]]);
  });

  test('shows what is inside an open group, with its own edges', () => {
    const model = graph(
      [0, 0, -1],
      [-1],
      [
        [0, 1],
        [1, 2],
      ],
    );
    const { boxes, levels } = plan(model, new Set([0]));
    expect(boxes.map(({ id, depth }) => [id, depth])).toEqual([
      [boxOfGroup(0), 0],
      [0, 1],
      [1, 1],
      [2, 0],
    ]);
    const inside = levels.find(({ owner }) => owner === 0)!;
    expect([inside.sources, inside.targets]).toEqual([[1], [2]]);
    const outside = levels.find(({ owner }) => owner === -1)!;
    expect([outside.sources, outside.targets]).toEqual([[0], [3]]);
  });

  test('ends where groups form a cycle', () => {
    const model = graph(
      [0, 1, 0],
      [-1, -1],
      [
        [0, 1],
        [1, 2],
      ],
    );
    expect(plan(model, new Set()).levels[0].sources).toHaveLength(2);
  });
});

describe('portals', () => {
  test('stand for the far lines of a broadcast, and its nearest consumer keeps its line', () => {
    const count = 40;
    const broadcast: [number, number][] = Array.from({ length: count - 2 }, (_, i) => [0, i + 2]);
    const model = graph(new Array<number>(count).fill(-1), [], [...chain(count), ...broadcast]);
    const { portals, levels } = plan(model, new Set());
    expect(portals.length).toBeGreaterThan(30);
    expect(new Set(portals.map(({ from }) => from))).toEqual(new Set([0]));
    const kept = levels[0].sources.map((source, e) => [source, levels[0].targets[e]]);
    expect(kept).toContainEqual([0, 1]);
    expect(kept).toContainEqual([0, 2]);
    expect(kept.length + portals.length).toBe(count - 1 + broadcast.length);
  });

  test('are not used for skip connections of a usual net', () => {
    const count = 30;
    const skips: [number, number][] = Array.from({ length: 9 }, (_, i) => [3 * i, 3 * i + 2]);
    const model = graph(new Array<number>(count).fill(-1), [], [...chain(count), ...skips]);
    expect(plan(model, new Set()).portals).toEqual([]);
  });

  test('bound how many ranks all lines skip together', () => {
    const children = Array.from({ length: 300 }, (_, i) => i);
    const lines = [...chain(300), ...children.slice(0, 100).map((i): [number, number] => [i, 299 - i])];
    const { sources, targets } = splitPortals(
      children,
      lines.map(([a]) => a),
      lines.map(([, b]) => b),
    );
    const rank = longestPathRanks(
      children,
      lines.map(([a]) => a),
      lines.map(([, b]) => b),
    );
    const skipped = sources.reduce((sum, source, e) => sum + rank.get(targets[e])! - rank.get(source)!, 0);
    expect(skipped).toBeLessThanOrEqual(300 * 6);
  });

  test('ranks are the longest paths', () => {
    const rank = longestPathRanks([0, 1, 2, 3], [0, 1, 0], [1, 2, 2]);
    expect([...rank.entries()]).toEqual([
      [0, 0],
      [1, 1],
      [2, 2],
      [3, 0],
    ]);
  });
});

describe('a layout', () => {
  const widths = (model: GraphModel) => ({
    nodes: new Float32Array(model.nodeCount).fill(80),
    groups: new Float32Array(model.groupCount).fill(150),
  });

  test('holds boxes inside their group and apart from their siblings', () => {
    const model = graph(
      [0, 0, 0, 1, 1, -1],
      [-1, -1],
      [
        [0, 1],
        [0, 2],
        [1, 3],
        [2, 3],
        [3, 4],
        [4, 5],
      ],
    );
    const { id, parent, x, y, width, height } = new LayoutEngine(model, widths(model)).layout(new Set([0, 1]));
    for (let i = 0; i < id.length; i++) {
      const p = parent[i];
      if (p >= 0) {
        expect(x[i]).toBeGreaterThan(x[p]);
        expect(y[i]).toBeGreaterThan(y[p]);
        expect(x[i] + width[i]).toBeLessThan(x[p] + width[p]);
        expect(y[i] + height[i]).toBeLessThan(y[p] + height[p]);
      }
      for (let j = 0; j < i; j++) {
        if (parent[j] !== p) continue;
        const apart =
          x[i] >= x[j] + width[j] || x[j] >= x[i] + width[i] || y[i] >= y[j] + height[j] || y[j] >= y[i] + height[i];
        expect(apart, `boxes ${i} and ${j}`).toBe(true);
      }
    }
  });

  test('puts siblings from left to right as they are executed', () => {
    const experts = Array.from({ length: 24 }, (_, i) => i + 1);
    const edges = experts.flatMap((e): [number, number][] => [
      [0, e],
      [e, 25],
    ]);
    const model = graph(new Array<number>(26).fill(-1), [], edges);
    const { x } = new LayoutEngine(model, widths(model)).layout(new Set());
    const places = experts.map((e) => x[e]);
    expect(places).toEqual([...places].sort((a, b) => a - b));
  });

  test('is the same for the same open groups, however they came to be open', () => {
    const model = graph([0, 0, 1, 1, 2, 2], [-1, -1, -1], chain(6));
    const engine = new LayoutEngine(model, widths(model));
    const first = engine.layout(new Set([1]));
    engine.layout(new Set([0, 1, 2]));
    expect(engine.layout(new Set([1]))).toEqual(first);
  });
});
