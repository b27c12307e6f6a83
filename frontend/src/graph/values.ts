import { type Better, isWorse, type Scale, stepOf } from '../colour/scale';
import { type BoxId, groupOfBox, isGroup } from './ids';
import type { GraphModel } from './model';

/**
 * Where values do not add up, a group's colour is the mean of this worst part of its ops: of big groups, the single
 * worst would paint all red.
 */
const WORST_PART = 0.05;
const STRIP_CELLS = 24;

/** The values of one metric in a graph: of every node, and of groups by what they hold. NaN is none. */
export class GraphValues {
  private readonly ofGroup: Float64Array;
  private readonly worstOfGroup: Float64Array;
  private readonly strips = new Map<number, Int8Array>();

  constructor(
    private readonly model: GraphModel,
    readonly ofNode: Float64Array,
    readonly scale: Scale,
    readonly better: Better,
    /** A value in words with its unit. */
    readonly text: (value: number) => string,
    /** Whether values add up: then a group has the sum of its ops. */
    private readonly adds = false,
  ) {
    this.ofGroup = new Float64Array(model.groupCount).fill(NaN);
    this.worstOfGroup = new Float64Array(model.groupCount).fill(NaN);
    this.summarize();
  }

  private summarize(): void {
    const held: number[][] = Array.from({ length: this.model.groupCount }, () => []);
    const worstFirst = Array.from(this.ofNode.keys()).filter((node) => !Number.isNaN(this.ofNode[node]));
    worstFirst.sort((a, b) => (isWorse(this.better, this.ofNode[a], this.ofNode[b]) ? -1 : 1));
    for (const node of worstFirst) {
      for (let g = this.model.group[node]; g >= 0; g = this.model.parent[g]) held[g].push(this.ofNode[node]);
    }
    held.forEach((values, group) => {
      if (!values.length) return;
      this.worstOfGroup[group] = values[0];
      if (this.adds) {
        this.ofGroup[group] = values.reduce((sum, value) => sum + value, 0);
        return;
      }
      const worst = values.slice(0, Math.max(1, Math.ceil(values.length * WORST_PART))).filter(Number.isFinite);
      this.ofGroup[group] = worst.length ? worst.reduce((sum, v) => sum + v, 0) / worst.length : values[0];
    });
  }

  of(id: BoxId): number {
    return isGroup(id) ? this.ofGroup[groupOfBox(id)] : this.ofNode[id];
  }

  /** What a group holds in words: the sum where values add up, else its worst; "" without a value. */
  words(group: number): string {
    const worst = this.worstOfGroup[group];
    if (Number.isNaN(worst)) return '';
    return this.adds ? `${this.text(this.ofGroup[group])} in all` : `worst ${this.text(worst)}`;
  }

  step(id: BoxId): number {
    return stepOf(this.scale, this.of(id));
  }

  /** The steps of the ops in a group along its execution, the worst of each cell; those without a value left out. */
  strip(group: number): Int8Array {
    let strip = this.strips.get(group);
    if (strip) return strip;
    const steps = this.model
      .nodesIn(group)
      .map((node) => this.step(node))
      .filter((step) => step >= 0);
    const cells = Math.min(STRIP_CELLS, steps.length);
    strip = new Int8Array(cells).fill(127);
    steps.forEach((step, i) => {
      const cell = Math.floor((i * cells) / steps.length);
      strip![cell] = Math.min(strip![cell], step);
    });
    this.strips.set(group, strip);
    return strip;
  }
}
