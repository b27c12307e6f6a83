import type { RowTable } from '../api/rows';
import { scaleOfShares } from '../colour/scale';
import type { GraphModel } from '../graph/model';
import { GraphValues } from '../graph/values';
import { type Metric, scaleFor, valueText } from '../metrics/metrics';
import type { ProfileTable } from './profile-table';
import { speedupReach } from './times';
import { microsecondsText, speedupText } from './words';

/** A metric of the ops that were timed, whether or not their tensors were compared. */
export interface TimingMetric extends Metric {
  ofRow: Float64Array;
}

const MOST_REACH = 4;

/** What the graph can be coloured by where times were measured. */
export function timingMetrics(table: ProfileTable): TimingMetric[] {
  const { main, speedup } = table;
  const times = table.figures(main, 'total_us');
  const perTensor =
    (ofRow: Float64Array) =>
    (rows: RowTable): Float64Array =>
      Float64Array.from({ length: rows.length }, (_, row) => ofRow[table.rowOf(rows.text('op', row)) ?? -1] ?? NaN);
  const time: TimingMetric = {
    id: `${main}_us`,
    title: main === 'quantized' ? 'Quantized time' : 'Time',
    unit: 'µs',
    hint: 'Time of the op in one inference, with the changes of type and layout for it',
    better: 'low',
    log: false,
    ramp: 'amount',
    adds: true,
    scale: scaleOfShares(times),
    text: microsecondsText,
    values: perTensor(times),
    ofRow: times,
  };
  if (main === 'reference') return [time];
  // One hundred times slower or faster shall not make all others look alike.
  const reach = Math.min(MOST_REACH, speedupReach([...speedup]));
  return [
    time,
    {
      id: 'speedup',
      title: 'Speed-up',
      unit: '',
      hint: 'Time in the reference over time in the quantized model: below 1× it is slower',
      better: 'high',
      log: true,
      scale: { worst: 1 / reach, best: reach, log: true },
      text: speedupText,
      values: perTensor(speedup),
      ofRow: speedup,
    },
  ];
}

/**
 * A metric of the timed ops at the nodes of a graph. Of ops that run as one, the first has a time that adds up, and all
 * have any other value.
 */
export function timingValues(
  model: GraphModel,
  table: ProfileTable,
  metric: TimingMetric,
  nodeOf: (op: string) => number | undefined,
): GraphValues {
  const ofNode = new Float64Array(model.nodeCount).fill(NaN);
  metric.ofRow.forEach((value, row) => {
    for (const op of metric.adds ? [table.name(row)] : table.ops(row)) {
      const node = nodeOf(op);
      if (node !== undefined) ofNode[node] = value;
    }
  });
  const text = (value: number): string => valueText(metric, value);
  return new GraphValues(model, ofNode, scaleFor(metric, metric.ofRow), metric.better, text, metric.adds);
}
