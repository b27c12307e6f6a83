import { useMemo } from 'react';
import type { RowTable } from '../api/rows';
import { Card } from '../app/Card';
import { formatRoute } from '../app/route';
import { useDark } from '../app/use-dark';
import { ramp } from '../colour/ramp';
import { stepOf } from '../colour/scale';
import { metricOf, scaleFor, valueText } from '../metrics/metrics';
import classes from './DamagedOps.module.css';

const SHOWN = 12;

/** The ops whose outputs are furthest from the reference, each a link to the op in the graph. */
export function DamagedOps({ run, table }: { run: string; table: RowTable }) {
  const dark = useDark();
  const metric = metricOf('sqnr_db');
  const values = metric.values(table);
  const scale = scaleFor(metric, values);
  const worst = useMemo(() => {
    const measured = table.ofRole('activation').filter((row) => !Number.isNaN(values[row]));
    return measured.sort((a, b) => values[a] - values[b]).slice(0, SHOWN);
  }, [table, values]);
  return (
    <Card
      title="Most damaged ops"
      testId="damaged-ops"
      aside={<a href={formatRoute({ page: 'run', run, view: 'graph', state: {} })}>all in the graph</a>}
    >
      <ol className={classes.ops}>
        {worst.map((row) => (
          <li key={row}>
            <a
              href={formatRoute({
                page: 'run',
                run,
                view: 'graph',
                state: { op: table.text('op', row), row: table.index(row) },
              })}
              title={table.text('op', row)}
            >
              {table.text('op', row)}
            </a>
            <span className={classes.type}>{table.text('op_type', row)}</span>
            <span className={classes.track}>
              <span
                style={{
                  width: `${Math.max(3, Math.min(100, (100 * values[row]) / scale.best))}%`,
                  background: ramp(dark)[stepOf(scale, values[row])],
                }}
              />
            </span>
            <span className={classes.value}>{valueText(metric, values[row])}</span>
          </li>
        ))}
      </ol>
      {!worst.length && <p className={classes.none}>Nothing has been compared yet.</p>}
    </Card>
  );
}
