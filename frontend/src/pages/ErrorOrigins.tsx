import { useMemo } from 'react';
import type { RowTable } from '../api/rows';
import { Card } from '../app/Card';
import { Name } from '../app/Name';
import { formatRoute } from '../app/route';
import { shareText } from '../app/text';
import { useDark } from '../app/use-dark';
import { ramp } from '../colour/ramp';
import { stepOf } from '../colour/scale';
import { type Metric, metricOf, OUTPUT_ERROR, rampOf, scaleFor, valueText } from '../metrics/metrics';
import classes from './ErrorOrigins.module.css';

const SHOWN = 12;

/** The ops that the output's error comes from, each a link to the op in the graph; while a run goes on, the noisiest. */
export function ErrorOrigins({ run, table }: { run: string; table: RowTable }) {
  const { metric, rows } = useMemo(() => leading(table), [table]);
  const values = metric.values(table);
  const shown = rows.slice(0, SHOWN);
  const sum = shown.reduce((total, row) => total + values[row], 0);
  return (
    <Card
      title={metric.adds ? 'Where the output’s error comes from' : 'Noisiest ops so far'}
      testId="error-origins"
      aside={
        <a href={formatRoute({ page: 'run', run, view: 'graph', state: metric.adds ? { metric: metric.id } : {} })}>
          in the graph
        </a>
      }
    >
      <ol className={classes.ops}>
        {shown.map((row) => (
          <Origin key={row} run={run} table={table} row={row} metric={metric} />
        ))}
      </ol>
      {!shown.length && <p className={classes.none}>Nothing has been compared yet.</p>}
      {shown.length > 0 && metric.adds && (
        <p className={classes.none}>
          {rows.length > SHOWN && `These ${SHOWN} of ${rows.length} ops make ${shareText(sum)} of it. `}
          The shares are estimates.
        </p>
      )}
    </Card>
  );
}

function Origin({ run, table, row, metric }: { run: string; table: RowTable; row: number; metric: Metric }) {
  const dark = useDark();
  const values = metric.values(table);
  const scale = scaleFor(metric, values);
  const full = metric.adds ? scale.worst : scale.best;
  const op = table.text('op', row);
  return (
    <li>
      <a href={formatRoute({ page: 'run', run, view: 'graph', state: { op, row: table.index(row) } })} title={op}>
        <Name scope={table.sharedScope}>{op}</Name>
      </a>
      <span className={classes.type}>{table.text('op_type', row)}</span>
      <span className={classes.track}>
        <span
          style={{
            width: `${Math.max(2, Math.min(100, (100 * values[row]) / full))}%`,
            background: ramp(rampOf(metric), dark)[stepOf(scale, values[row])],
          }}
        />
      </span>
      <span className={classes.value}>{valueText(metric, values[row])}</span>
    </li>
  );
}

/** By which metric ops are shown, and those that have a value of it, the worst first. */
function leading(table: RowTable): { metric: Metric; rows: number[] } {
  const activations = table.ofRole('activation');
  const known = (metric: Metric): number[] => {
    const values = metric.values(table);
    const sign = metric.better === 'high' ? 1 : -1;
    return activations.filter((row) => !Number.isNaN(values[row])).sort((a, b) => sign * (values[a] - values[b]));
  };
  const shares = known(OUTPUT_ERROR);
  return shares.length
    ? { metric: OUTPUT_ERROR, rows: shares }
    : { metric: metricOf('sqnr_db'), rows: known(metricOf('sqnr_db')) };
}
