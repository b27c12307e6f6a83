import type { NumberColumn, RowTable, TextColumn } from '../api/rows';
import { numberText } from '../app/text';
import { ramp } from '../colour/ramp';
import { stepOf } from '../colour/scale';
import { type Metric, METRICS, OUTPUT_ERROR, rampOf, scaleFor } from '../metrics/metrics';
import type { Column } from './column';

const textColumn = (
  rows: RowTable,
  id: TextColumn,
  title: string,
  width: number,
  more: Partial<Column> = {},
): Column => ({
  id,
  title,
  width,
  text: (row) => rows.text(id, row),
  ...more,
});

const numberColumn = (
  rows: RowTable,
  id: NumberColumn,
  title: string,
  text: (value: number) => string = numberText,
): Column => ({
  id,
  title,
  width: Math.max(96, title.length * 7.6 + 34),
  number: (row) => rows.number(id, row),
  text: (row) => text(rows.number(id, row)),
});

/** A column for a metric, marked with the colour that the graph gives the value. */
function metricColumn(rows: RowTable, metric: Metric, dark: boolean): Column {
  const values = metric.values(rows);
  const scale = scaleFor(metric, values);
  const title = metric.unit ? `${metric.title} ${metric.unit}` : metric.title;
  return {
    id: metric.id,
    title,
    hint: metric.hint,
    width: Math.max(112, title.length * 7.6 + 34),
    descendingFirst: metric.adds,
    number: (row) => values[row],
    text: (row) => metric.text(values[row]),
    swatch: (row) => {
      const step = stepOf(scale, values[row]);
      return step < 0 ? null : ramp(rampOf(metric), dark)[step];
    },
  };
}

const SIDES = ['reference', 'quantized'] as const;

/** Every column that a table of ops can show. */
export function opColumns(rows: RowTable, dark: boolean): Column[] {
  const metrics = METRICS.filter((metric) => metric !== OUTPUT_ERROR).map((metric) => metricColumn(rows, metric, dark));
  const summaries = SIDES.flatMap((side) => [
    numberColumn(rows, `${side}_min`, side === 'reference' ? 'Min' : 'Quantized min'),
    numberColumn(rows, `${side}_max`, side === 'reference' ? 'Max' : 'Quantized max'),
    numberColumn(rows, `${side}_mean`, side === 'reference' ? 'Mean' : 'Quantized mean'),
    numberColumn(rows, `${side}_std`, side === 'reference' ? 'Std' : 'Quantized std'),
    numberColumn(rows, `${side}_variance`, side === 'reference' ? 'Variance' : 'Quantized variance'),
    numberColumn(rows, `${side}_kurtosis`, side === 'reference' ? 'Kurtosis' : 'Quantized kurtosis'),
    numberColumn(rows, `${side}_nan_count`, side === 'reference' ? 'NaN' : 'Quantized NaN'),
    numberColumn(rows, `${side}_infinity_count`, side === 'reference' ? 'Infinite' : 'Quantized infinite'),
  ]);
  return [
    textColumn(rows, 'op', 'Op', 256, { grows: true, scope: rows.sharedScope }),
    metricColumn(rows, OUTPUT_ERROR, dark),
    textColumn(rows, 'op_type', 'Type', 110),
    ...metrics,
    ...summaries,
    textColumn(rows, 'dtype', 'Dtype', 72),
    textColumn(rows, 'granularity', 'Granularity', 132),
    numberColumn(rows, 'scale', 'Scale'),
    numberColumn(rows, 'zero_point', 'Zero point'),
    textColumn(rows, 'scope', 'Scope', 160, { scope: rows.sharedScope }),
    textColumn(rows, 'tensor', 'Tensor', 180, { scope: rows.sharedScope }),
    textColumn(rows, 'quantized_tensor', 'Quantized tensor', 180, { scope: rows.sharedScope }),
    textColumn(rows, 'absorbed', 'Absorbed', 110),
    textColumn(rows, 'remark', 'Remark', 160),
  ];
}

export const ACTIVATION_COLUMNS = [
  'op',
  'output_error_share',
  'op_type',
  'sqnr_db',
  'isolated_sqnr_db',
  'local_sqnr_db',
  'mse',
  'reference_min',
  'reference_max',
  'clipped_fraction',
  'dtype',
  'remark',
];

/** All columns of a weights summary: those of both models. */
export const WEIGHT_COLUMNS = [
  'op',
  'output_error_share',
  'op_type',
  'sqnr_db',
  'mse',
  ...SIDES.flatMap((side) => ['min', 'max', 'mean', 'std', 'variance'].map((figure) => `${side}_${figure}`)),
  'dtype',
  'granularity',
];
