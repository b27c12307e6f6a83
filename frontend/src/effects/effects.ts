import { toNumber } from '../api/figures';
import type { Sensitivities } from '../api/types';
import { sharedScope } from '../app/names';
import type { RunState } from '../app/route';
import { alignedText, countText } from '../app/text';
import { scaleOfShares } from '../colour/scale';
import type { GraphModel } from '../graph/model';
import { GraphValues } from '../graph/values';
import { type Metric, METRICS } from '../metrics/metrics';
import type { Column } from '../table/column';

/** What one op or module does to the output; NaN where it is not known. */
export interface Effect {
  name: string;
  type: string;
  ops: readonly string[];
  alone: number;
  low: number;
  high: number;
  gain: number;
  place: string;
  bestPlace: number;
}

export function effectsOf({ rows }: Sensitivities): Effect[] {
  return rows.map((row) => ({
    name: row.op,
    type: row.op_type,
    ops: row.ops,
    alone: toNumber(row.alone),
    low: toNumber(row.alone_low),
    high: toNumber(row.alone_high),
    gain: toNumber(row.gain),
    place: placeText(row.best_rank, row.worst_rank),
    bestPlace: row.best_rank ?? NaN,
  }));
}

/** The places that an effect may have in the order: one if it is certain. */
export function placeText(best: number | null, worst: number | null): string {
  if (best === null || worst === null) return '–';
  return best === worst ? String(best) : `${best}–${worst}`;
}

export const nounOf = ({ by }: Sensitivities): 'op' | 'module' => (by === 'op' ? 'op' : 'module');

/** How far the order can be trusted, and what it leaves out. */
export function certainty(found: Sensitivities): string[] {
  const noun = nounOf(found);
  if (!found.finished) return ['Intervals and places are known when all are measured.'];
  const certain = found.rows.findIndex((row, i) => row.best_rank !== i + 1 || row.worst_rank !== i + 1);
  const first = certain < 0 ? found.rows.length : certain;
  const idle = found.rows.filter((row) => row.alone_low === null).length;
  return [
    first
      ? first === 1
        ? 'The first place is certain.'
        : `The first ${first} places are certain.`
      : 'Even the first place is not certain: on other samples another could take it.',
    ...(idle
      ? [`${countText(idle, `${noun} does`, `${noun}s do`)} next to nothing: looked at on the worst sample only.`]
      : []),
    ...(found.others.length
      ? [`${countText(found.others.length, 'op')} not measured: they come later by estimate.`]
      : []),
  ];
}

/** The columns of a table of effects, rows being indices into them. */
export function effectColumns(effects: readonly Effect[], noun: 'op' | 'module'): Column[] {
  const text = alignedText(Math.max(...effects.map(({ alone }) => alone)));
  const figure = (id: 'alone' | 'low' | 'high' | 'gain', title: string, width: number, hint: string): Column => ({
    id,
    title,
    hint,
    width,
    descendingFirst: true,
    number: (row) => effects[row][id],
    text: (row) => text(effects[row][id]),
  });
  return [
    {
      id: 'place',
      title: 'Place',
      hint: 'Where it may stand in the order by damage, with 95 % confidence; 1 matters most',
      width: 72,
      number: (row) => effects[row].bestPlace,
      text: (row) => effects[row].place,
    },
    {
      id: 'name',
      title: noun === 'op' ? 'Op' : 'Module',
      width: 150,
      grows: true,
      scope: sharedScope(effects.map(({ name }) => name)),
      text: (row) => effects[row].name,
    },
    { id: 'type', title: noun === 'op' ? 'Type' : 'Holds', width: 84, text: (row) => effects[row].type },
    figure('alone', 'Damage alone', 136, `Damage at the output if this ${noun} alone is quantized`),
    figure('low', '95 % from', 106, 'Lower end of the 95 % interval over the samples'),
    figure('high', 'to', 80, 'Upper end of the 95 % interval over the samples'),
    figure('gain', 'Gain in float', 124, `Damage that goes if this ${noun} alone is left in float`),
  ];
}

/** What the graph is coloured by where effects were measured and no tensors were compared. */
export function effectMetric({ damage_name: name, by }: Sensitivities, effects: readonly Effect[]): Metric {
  const values = effects.map(({ alone }) => alone);
  return {
    ...METRICS[0],
    id: 'effect',
    title: `Damage alone (${name})`,
    unit: '',
    hint: `Damage at the output if this ${by === 'op' ? 'op' : 'module'} alone is quantized`,
    better: 'low',
    ramp: 'amount',
    scale: scaleOfShares(values),
    text: alignedText(Math.max(...values)),
  };
}

/** The damage of every op of a graph; those of a module have the module's. */
export function effectValues(model: GraphModel, metric: Metric, effects: readonly Effect[]): GraphValues {
  const ofNode = new Float64Array(model.nodeCount).fill(NaN);
  for (const { ops, alone } of effects) {
    for (const op of ops) {
      const node = model.indexOf.get(op);
      if (node !== undefined) ofNode[node] = alone;
    }
  }
  return new GraphValues(model, ofNode, metric.scale!, metric.better, metric.text);
}

/** What shows an effect in the graph: its op or, of several ops, the innermost group that holds them all. */
export function shownInGraph({ ops }: Effect, model: GraphModel | undefined): RunState {
  const nodes = ops.map((op) => model?.indexOf.get(op)).filter((node) => node !== undefined);
  const [first, ...rest] = nodes.map((node) => model!.ancestorsOf(node));
  const group = first?.find((candidate) => rest.every((others) => others.includes(candidate)));
  return ops.length > 1 && group !== undefined ? { group } : { op: ops[0] };
}
