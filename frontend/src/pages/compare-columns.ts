import { toNumber, toNumbers } from '../api/figures';
import type { Comparison, Figure } from '../api/types';
import { sharedScope } from '../app/names';
import { numberText } from '../app/text';
import { type Metric, METRICS } from '../metrics/metrics';
import type { Column } from '../table/column';

type Side = Comparison['in_a'];

/** The metrics in which two runs are compared. */
export const COMPARED_METRICS: readonly Metric[] = METRICS.filter(({ id }) =>
  [
    'sqnr_db',
    'isolated_sqnr_db',
    'local_sqnr_db',
    'mse',
    'cosine',
    'rmse_over_scale',
    'clipped_fraction',
    'effective_bits',
    'levels_used',
  ].includes(id),
);

/** A column of one run; NaN where it lacks the row. */
export const figuresOf = (side: Side, metric: string): Float64Array =>
  toNumbers(side[metric as keyof Side] as Figure[]);

export const differencesOf = ({ difference }: Comparison, metric: string): Float64Array =>
  toNumbers(difference[metric as keyof Comparison['difference']] as Figure[]);

/** Greater than nothing: by how much b is better; NaN where one run lacks the row. */
export function gainsOf(comparison: Comparison, metric: Metric): Float64Array {
  return differencesOf(comparison, metric.id).map((value) => (metric.better === 'high' ? value : -value));
}

export function compareColumns(comparison: Comparison, metric: Metric): Column[] {
  const { in_a: inA, in_b: inB } = comparison;
  const [a, b] = [figuresOf(inA, metric.id), figuresOf(inB, metric.id)];
  const gains = gainsOf(comparison, metric);
  const differences = differencesOf(comparison, metric.id);
  const unit = metric.unit ? ` ${metric.unit}` : '';
  const side = (run: 'a' | 'b', values: Float64Array): Column => ({
    id: run,
    title: `${run.toUpperCase()}: ${metric.title}${unit}`,
    width: Math.max(112, (metric.title.length + unit.length + 3) * 7.6 + 34),
    number: (row) => values[row],
    text: (row) => metric.text(values[row]),
  });
  const dtype = (run: 'a' | 'b', from: Side): Column => ({
    id: `dtype_${run}`,
    title: `${run.toUpperCase()}: dtype`,
    width: 82,
    text: (row) => from.dtype[row] ?? '–',
  });
  const range = (run: 'a' | 'b', from: Side): Column => ({
    id: `range_${run}`,
    title: `${run.toUpperCase()}: range`,
    width: 138,
    text: (row) =>
      `${numberText(toNumber(from.quantized_min[row]), 3)} … ${numberText(toNumber(from.quantized_max[row]), 3)}`,
  });
  return [
    {
      id: 'op',
      title: 'Op',
      width: 240,
      grows: true,
      scope: sharedScope(comparison.op),
      text: (row) => comparison.op[row],
    },
    { id: 'op_type', title: 'Type', width: 100, text: (row) => comparison.op_type[row] },
    { id: 'role', title: 'Role', width: 84, text: (row) => comparison.role[row] },
    side('a', a),
    side('b', b),
    {
      id: 'gain',
      title: `B − A${unit}`,
      hint: 'What is worse in B comes first when sorted',
      width: 106,
      number: (row) => gains[row],
      text: (row) => `${differences[row] > 0 ? '+' : ''}${metric.text(differences[row])}`,
    },
    dtype('a', inA),
    dtype('b', inB),
    range('a', inA),
    range('b', inB),
  ];
}
