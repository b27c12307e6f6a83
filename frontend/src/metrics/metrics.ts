import type { NumberColumn, RowTable } from '../api/rows';
import { decibelText, numberText, percentText, shareText } from '../app/text';
import type { RampKind } from '../colour/ramp';
import { type Better, type Scale, scaleOf, scaleOfShares } from '../colour/scale';

/** A number of a row, and how it reads: which way it gets worse, and from where to where colours span. */
export interface Metric {
  id: string;
  title: string;
  unit: string;
  hint: string;
  better: Better;
  log: boolean;
  /** Fixed ends, where a value means the same in every model; else they come from the values. */
  scale?: Scale;
  /** Whether values, which are shares, are written and asked for in percent. */
  percent?: boolean;
  /** Amounts are coloured by one hue from nothing to the largest; all else by how good it is. */
  ramp?: RampKind;
  /** Whether values are parts of one whole, so that they add up. */
  adds?: boolean;
  text(value: number): string;
  values(rows: RowTable): Float64Array;
}

// At 0 dB the noise is as strong as the signal; eight bits give about 40 dB and more.
const DECIBELS: Scale = { worst: 0, best: 40, log: false };

const ofColumn =
  (column: NumberColumn) =>
  (rows: RowTable): Float64Array =>
    rows.numbers(column);

function decibels(id: NumberColumn, title: string, hint: string): Metric {
  return {
    id,
    title,
    unit: 'dB',
    hint,
    better: 'high',
    log: false,
    scale: DECIBELS,
    text: decibelText,
    values: ofColumn(id),
  };
}

function number(id: NumberColumn, title: string, hint: string, better: Better = 'low', log = true): Metric {
  return { id, title, unit: '', hint, better, log, text: numberText, values: ofColumn(id) };
}

const width = (rows: RowTable): Float64Array => {
  const [low, high] = [rows.numbers('reference_min'), rows.numbers('reference_max')];
  return low.map((value, i) => high[i] - value);
};

/** The share of a part in the cumulative error. */
function budgetShare(part: string): Metric {
  return {
    id: `budget_${part}`,
    title: `Error from ${part}`,
    unit: '',
    hint: `Share of the op's cumulative error that is ${part}`,
    better: 'low',
    log: false,
    scale: { worst: 1, best: 0, log: false },
    percent: true,
    text: percentText,
    values: (rows) => {
      const all = rows.numbers('mse');
      return rows.numbers(`budget_${part}` as NumberColumn).map((value, i) => value / all[i]);
    },
  };
}

/** The order of tables, and what the overview shows: what an op does to the model's output, not to its own. */
export const OUTPUT_ERROR: Metric = {
  id: 'output_error_share',
  title: 'Output error',
  unit: '',
  hint: 'Estimated part of the error at the model’s output that arises in this op; all ops together make 100 %',
  better: 'low',
  log: false,
  percent: true,
  ramp: 'amount',
  adds: true,
  text: shareText,
  values: ofColumn('output_error_share'),
};

/** All metrics that the graph can be coloured by and tables be filtered by, the most telling first. */
export const METRICS: readonly Metric[] = [
  decibels(
    'sqnr_db',
    'SQNR',
    'Cumulative: this tensor of the quantized model against the reference, with all that came before',
  ),
  OUTPUT_ERROR,
  decibels('isolated_sqnr_db', 'SQNR isolated', 'The op alone, quantized on the reference’s inputs'),
  decibels('local_sqnr_db', 'SQNR local', 'This tensor’s own rounding and clipping'),
  decibels('simulated_sqnr_db', 'SQNR simulated', 'Cumulative error of the simulated trace'),
  decibels('kernels_sqnr_db', 'SQNR of kernels', 'What the kernels that really run add to the simulated trace'),
  number('mse', 'MSE', 'Cumulative mean squared error, pooled over all samples'),
  number('isolated_mse', 'MSE isolated', 'Mean squared error of the op alone'),
  number('local_mse', 'MSE local', 'Mean squared error of this tensor’s own rounding and clipping'),
  {
    ...number('cosine', 'Cosine', 'Cosine of the angle between both tensors; 1 is equal', 'high', false),
    scale: { worst: 0.9, best: 1, log: false },
  },
  {
    ...number('rmse_over_scale', 'RMSE / scale', '0.289 is the healthy value of pure rounding'),
    scale: { worst: 10, best: 0.289, log: true },
  },
  {
    ...number('clipped_fraction', 'Clipped', 'Share of the reference outside the representable range', 'low', false),
    scale: { worst: 0.01, best: 0, log: false },
    percent: true,
    text: percentText,
  },
  {
    ...number(
      'effective_bits',
      'Effective bits',
      'log2 of the range over the error’s standard deviation',
      'high',
      false,
    ),
    scale: { worst: 2, best: 8, log: false },
  },
  number('levels_used', 'Levels used', 'Integer codes that were seen', 'high', false),
  { ...number('reference_max', 'Range', 'Maximum minus minimum of the reference'), id: 'range', values: width },
  number('reference_outlier_ratio', 'Outlier ratio', 'How far the extreme values are from the bulk'),
  ...['inherited', 'weight', 'bias', 'clipping', 'rounding', 'residual'].map(budgetShare),
];

export const metricOf = (id: string | undefined): Metric => METRICS.find((metric) => metric.id === id) ?? METRICS[0];

/** A value with its unit. */
export const valueText = (metric: Metric, value: number): string =>
  metric.unit && Number.isFinite(value) ? `${metric.text(value)} ${metric.unit}` : metric.text(value);

export const scaleFor = (metric: Metric, values: ArrayLike<number>): Scale =>
  metric.scale ?? (metric.ramp === 'amount' ? scaleOfShares(values) : scaleOf(values, metric.better, metric.log));

export const rampOf = (metric: Metric): RampKind => metric.ramp ?? 'quality';

const WORST_PART = 0.1;

/**
 * A threshold from which on rows count as bad until the reader says otherwise: half way between the ends of the scale
 * or, where no row is as bad as that, so that a tenth of the rows passes.
 */
export function badThreshold(metric: Metric, scale: Scale, values: Float64Array, rows: readonly number[]): number {
  const { worst, best, log } = scale;
  const middle = log ? Math.sqrt(worst * best) : (worst + best) / 2;
  const sign = metric.better === 'high' ? 1 : -1;
  const known = Float64Array.from(rows, (row) => sign * values[row])
    .filter((value) => !Number.isNaN(value))
    .sort();
  if (!known.length || known[0] <= sign * middle) return Number(middle.toPrecision(3));
  return sign * known[Math.floor((known.length - 1) * WORST_PART)];
}
