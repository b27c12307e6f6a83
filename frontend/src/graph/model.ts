import { sharedScope } from '../app/names';
import { type BoxId, boxOfGroup, groupOfBox, isGroup } from './ids';

/** A graph as the server sends it: one array per column; a group's parent comes before it, −1 is the top level. */
export interface GraphColumns {
  grouping: string;
  ops: string[];
  nodes: { name: string[]; label: string[]; op: number[]; group: number[] };
  groups: { name: string[]; parent: number[] };
  edges: { src: number[]; dst: number[]; tensor: string[] };
}

const TOP = -1;

/** A graph that can be walked in all directions. Children are in execution order, that of their first op. */
export class GraphModel {
  readonly nodeCount: number;
  readonly groupCount: number;
  readonly group: Int32Array;
  readonly parent: Int32Array;
  readonly source: Int32Array;
  readonly target: Int32Array;
  /** How many ops a group holds, those of its groups included. */
  readonly opCount: Int32Array;
  readonly indexOf: ReadonlyMap<string, number>;
  private readonly children: BoxId[][];
  private readonly incoming: number[][];
  private readonly outgoing: number[][];

  constructor(readonly columns: GraphColumns) {
    const { nodes, groups, edges } = columns;
    this.nodeCount = nodes.name.length;
    this.groupCount = groups.name.length;
    this.group = Int32Array.from(nodes.group);
    this.parent = Int32Array.from(groups.parent);
    this.source = Int32Array.from(edges.src);
    this.target = Int32Array.from(edges.dst);
    this.opCount = new Int32Array(this.groupCount);
    this.indexOf = new Map(nodes.name.map((name, index) => [name, index]));
    this.children = Array.from({ length: this.groupCount + 1 }, () => []);
    this.adopt();
    this.incoming = Array.from({ length: this.nodeCount }, () => []);
    this.outgoing = Array.from({ length: this.nodeCount }, () => []);
    for (let e = 0; e < this.source.length; e++) {
      this.outgoing[this.source[e]].push(e);
      this.incoming[this.target[e]].push(e);
    }
  }

  /** The modules around nearly all ops. */
  get sharedScope(): string {
    return sharedScope(this.columns.nodes.name);
  }

  private adopt(): void {
    const seen = new Uint8Array(this.groupCount);
    for (let node = 0; node < this.nodeCount; node++) {
      this.children[this.group[node] + 1].push(node);
      for (let g = this.group[node]; g !== TOP; g = this.parent[g]) {
        this.opCount[g]++;
        if (seen[g]) continue;
        seen[g] = 1;
        // A group takes its place before the op that made it known, or among its parent's children where it is nested.
        const siblings = this.children[this.parent[g] + 1];
        siblings.push(boxOfGroup(g));
      }
    }
  }

  /** The boxes inside a group, or at the top level without one. */
  childrenOf(group = TOP): readonly BoxId[] {
    return this.children[group + 1];
  }

  /** The group that a box lies in, −1 at the top level. */
  parentOf(id: BoxId): number {
    return isGroup(id) ? this.parent[groupOfBox(id)] : this.group[id];
  }

  /** The groups around a box, the innermost first. */
  ancestorsOf(id: BoxId): number[] {
    const found: number[] = [];
    for (let g = this.parentOf(id); g !== TOP; g = this.parent[g]) found.push(g);
    return found;
  }

  /** The nodes that a node reads, each once. */
  inputsOf(node: number): number[] {
    return [...new Set(this.incoming[node].map((e) => this.source[e]))];
  }

  /** The nodes that read a node, each once. */
  outputsOf(node: number): number[] {
    return [...new Set(this.outgoing[node].map((e) => this.target[e]))];
  }

  label(id: BoxId): string {
    return isGroup(id) ? this.columns.groups.name[groupOfBox(id)] : this.columns.nodes.label[id];
  }

  opType(node: number): string {
    return this.columns.ops[this.columns.nodes.op[node]];
  }

  nameOf(id: BoxId): string {
    if (!isGroup(id)) return this.columns.nodes.name[id];
    const path = [this.label(id), ...this.ancestorsOf(id).map((g) => this.columns.groups.name[g])];
    return path.reverse().join(' › ');
  }

  /** The nodes inside a group, in execution order. */
  nodesIn(group: number): number[] {
    const found: number[] = [];
    const visit = (g: number): void => {
      for (const id of this.childrenOf(g)) {
        if (isGroup(id)) visit(groupOfBox(id));
        else found.push(id);
      }
    };
    visit(group);
    return found;
  }
}
