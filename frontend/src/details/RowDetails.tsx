import { type FullRow, useRow } from '../api/queries';
import type { RowTable } from '../api/rows';
import { Facts } from '../app/Card';
import { Answer } from '../app/Notice';
import { useDark } from '../app/use-dark';
import { ActivationHistogram } from '../charts/ActivationHistogram';
import { BudgetBar } from '../charts/BudgetBar';
import { ramp } from '../colour/ramp';
import { stepOf } from '../colour/scale';
import { METRICS, rampOf, scaleFor, valueText } from '../metrics/metrics';
import { ChannelViews } from './ChannelViews';
import classes from './details.module.css';

/** Figures that head a row's details, where it has them. */
const HEADLINES = [
  'output_error_share',
  'sqnr_db',
  'isolated_sqnr_db',
  'local_sqnr_db',
  'mse',
  'cosine',
  'rmse_over_scale',
  'clipped_fraction',
  'effective_bits',
  'levels_used',
  'range',
  'simulated_sqnr_db',
  'kernels_sqnr_db',
];

/** One compared tensor: its figures, where its error comes from, its values and its channels. */
export function RowDetails({ run, table, row }: { run: string; table: RowTable; row: number }) {
  const details = useRow(run, table.index(row));
  const remark = table.text('remark', row);
  return (
    <>
      {remark && <p className={classes.remark}>{remark}</p>}
      <Figures table={table} row={row} />
      <Facts facts={identity(table, row)} />
      <Answer of={details} what="the tensor">
        {(found) => <Charts table={table} row={row} details={found} />}
      </Answer>
    </>
  );
}

/** Which tensors are compared, and what else the op computes in one piece with it. */
function identity(table: RowTable, row: number): (readonly [string, string])[] {
  const facts = [
    ['Tensor', table.text('tensor', row)],
    ['Quantized tensor', table.text('quantized_tensor', row)],
    ['Pattern', [table.text('op_type', row), table.text('absorbed', row)].filter(Boolean).join(' + ')],
    ['Dtype', [table.text('dtype', row), table.text('granularity', row)].filter(Boolean).join(', ')],
  ] as const;
  return facts.filter(([, value]) => value);
}

function Figures({ table, row }: { table: RowTable; row: number }) {
  const dark = useDark();
  const shown = METRICS.filter(({ id }) => HEADLINES.includes(id)).map((metric) => {
    const values = metric.values(table);
    return { metric, value: values[row], step: stepOf(scaleFor(metric, values), values[row]) };
  });
  return (
    <dl className={classes.figures}>
      {shown
        .filter(({ value }) => !Number.isNaN(value))
        .map(({ metric, value, step }) => (
          <div key={metric.id} title={metric.hint}>
            <dt>{metric.title}</dt>
            <dd data-testid={`figure-${metric.id}`}>
              <span
                className={classes.swatch}
                style={{ background: ramp(rampOf(metric), dark)[step] }}
                aria-hidden="true"
              />
              {valueText(metric, value)}
            </dd>
          </div>
        ))}
    </dl>
  );
}

function Charts({ table, row, details }: { table: RowTable; row: number; details: FullRow }) {
  const role = table.role(row);
  const name = `${table
    .text('op', row)
    .replace(/[^\w.-]+/g, '_')
    .replace(/^_/, '')}-${role}`;
  return (
    <>
      {details.budget && (
        <div className={classes.chart}>
          <BudgetBar budget={details.budget} fileName={`${name}-budget`} />
        </div>
      )}
      {details.histogram && (
        <div className={classes.chart}>
          <ActivationHistogram
            title={`Values of the ${role}`}
            fileName={`${name}-histogram`}
            histogram={details.histogram}
            range={details.range}
            step={table.number('scale', row)}
          />
        </div>
      )}
      {details.channels && <ChannelViews data={details.channels} fileName={`${name}-channels`} />}
    </>
  );
}
