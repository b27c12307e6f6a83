import type { RowTable } from '../api/rows';
import type { Role, Side } from '../api/types';
import { isWorse } from '../colour/scale';
import { type Metric, scaleFor, valueText } from '../metrics/metrics';
import type { GraphModel } from './model';
import { GraphValues } from './values';

/** The values of a metric at the nodes of a graph: of an op with several rows of the role, the worst or the sum. */
export function valuesOf(model: GraphModel, rows: RowTable, metric: Metric, role: Role, side: Side): GraphValues {
  const values = metric.values(rows);
  const nodes = rows.numbers(side === 'reference' ? 'node' : 'quantized_node');
  const ofNode = new Float64Array(model.nodeCount).fill(NaN);
  const ofRole = rows.ofRole(role);
  for (const row of ofRole) {
    const node = nodes[row];
    if (!(node >= 0 && node < model.nodeCount)) continue;
    if (metric.adds && !Number.isNaN(ofNode[node])) ofNode[node] += values[row] || 0;
    else if (isWorse(metric.better, values[row], ofNode[node])) ofNode[node] = values[row];
  }
  const scale = scaleFor(
    metric,
    ofRole.map((row) => values[row]),
  );
  return new GraphValues(model, ofNode, scale, metric.better, (value) => valueText(metric, value), metric.adds);
}
