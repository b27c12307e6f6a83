import type { Portal } from './plan';

/** A box that feeds at least this many siblings is a broadcast: a mask, a position table, a time embedding. */
const BROADCAST_FANOUT = 6;
/** Lines of a broadcast that skip more ranks than this become portals. */
const BROADCAST_SPAN = 3;
/** Levels of fewer boxes are readable with all their lines. */
const SMALL_LEVEL = 8;
/** How many ranks all lines together may skip, per box and at least: it bounds the time of the layout. */
const SKIPPED_PER_BOX = 6;
const SKIPPED_AT_LEAST = 400;
/** A line that skips no more than this is never cut. */
const SHORT_SPAN = 4;

export interface Split {
  sources: number[];
  targets: number[];
  portals: Portal[];
}

/**
 * The edges of one level that are drawn as lines, and those that become portals.
 *
 * Far-reaching lines ruin a layered drawing and the time it takes: every rank that a line skips holds a dummy box.
 */
export function splitPortals(children: readonly number[], sources: number[], targets: number[]): Split {
  if (children.length <= SMALL_LEVEL || !sources.length) return { sources, targets, portals: [] };
  const rank = longestPathRanks(children, sources, targets);
  const span = (e: number): number => rank.get(targets[e])! - rank.get(sources[e])!;
  const cut = new Set<number>();

  for (const edges of edgesBySource(sources).values()) {
    if (edges.length < BROADCAST_FANOUT) continue;
    edges.sort((a, b) => span(a) - span(b));
    // The nearest consumer keeps its line: it says where the box belongs.
    for (const e of edges.slice(1)) if (span(e) > BROADCAST_SPAN) cut.add(e);
  }

  const kept = sources.map((_, e) => e).filter((e) => !cut.has(e));
  kept.sort((a, b) => span(b) - span(a));
  let skipped = kept.reduce((sum, e) => sum + span(e), 0);
  const budget = Math.max(SKIPPED_AT_LEAST, children.length * SKIPPED_PER_BOX);
  for (const e of kept) {
    if (skipped <= budget || span(e) <= SHORT_SPAN) break;
    cut.add(e);
    skipped -= span(e);
  }

  const lines = sources.map((_, e) => e).filter((e) => !cut.has(e));
  return {
    sources: lines.map((e) => sources[e]),
    targets: lines.map((e) => targets[e]),
    portals: [...cut].map((e) => ({ at: targets[e], from: sources[e] })),
  };
}

function edgesBySource(sources: readonly number[]): Map<number, number[]> {
  const found = new Map<number, number[]>();
  sources.forEach((source, e) => {
    const edges = found.get(source);
    if (edges) edges.push(e);
    else found.set(source, [e]);
  });
  return found;
}

/** The length of the longest path to each box; boxes on a cycle, which groups can form, keep the rank they got. */
export function longestPathRanks(
  children: readonly number[],
  sources: readonly number[],
  targets: readonly number[],
): Map<number, number> {
  const rank = new Map(children.map((box) => [box, 0]));
  const waitsFor = new Map(children.map((box) => [box, 0]));
  const next = new Map<number, number[]>(children.map((box) => [box, []]));
  sources.forEach((source, e) => {
    waitsFor.set(targets[e], waitsFor.get(targets[e])! + 1);
    next.get(source)!.push(targets[e]);
  });
  const ready = children.filter((box) => !waitsFor.get(box));
  for (let i = 0; i < ready.length; i++) {
    for (const target of next.get(ready[i])!) {
      rank.set(target, Math.max(rank.get(target)!, rank.get(ready[i])! + 1));
      const left = waitsFor.get(target)! - 1;
      waitsFor.set(target, left);
      if (!left) ready.push(target);
    }
  }
  return rank;
}
