import { useMemo, useState } from 'react';
import { useRows } from '../api/queries';
import type { RowTable } from '../api/rows';
import { Answer, Notice } from '../app/Notice';
import { formatRoute, useChangeState } from '../app/route';
import { rem } from '../app/root-scale';
import { Splitter, useSplit } from '../app/Splitter';
import { RowDetails } from '../details/RowDetails';
import details from '../details/details.module.css';
import { metricOf } from '../metrics/metrics';
import { filterRows, NO_FILTER, type RowFilter } from '../table/filter';
import { WEIGHT_COLUMNS } from '../table/op-columns';
import { OpTable } from '../table/OpTable';
import type { RunPageProps } from './RunPage';
import classes from './WeightsPage.module.css';

/** Every weight of both models, with its figures, its values and its channels. */
export function WeightsPage({ run, state }: RunPageProps) {
  const rows = useRows(run.name);
  return (
    <Answer of={rows} what="the weights">
      {(table) =>
        table.ofRole('weight').length ? (
          <Weights run={run} state={state} table={table} />
        ) : (
          <Notice
            title={run.status === 'running' ? 'No weight has been compared yet' : 'This run compared no weights'}
          />
        )
      }
    </Answer>
  );
}

function Weights({ run, state, table }: RunPageProps & { table: RowTable }) {
  const change = useChangeState();
  const panel = useSplit('weight-details', 470, 320, 1100);
  const [filter, setFilter] = useState<RowFilter>(NO_FILTER);
  const metric = metricOf(state.metric);
  const weights = useMemo(() => table.ofRole('weight'), [table]);
  const types = useMemo(() => [...new Set(weights.map((row) => table.text('op_type', row)))].sort(), [table, weights]);
  const rows = useMemo(() => {
    const column = metric.values(table);
    return filterRows(weights, filter, {
      text: (row) => `${table.text('op', row)} ${table.text('op_type', row)} ${table.text('tensor', row)}`,
      type: (row) => table.text('op_type', row),
      metric: (row) => column[row],
      better: metric.better,
    });
  }, [table, weights, filter, metric]);
  const selected = selectedWeight(table, weights, state);

  return (
    <div className={classes.page}>
      <div className={classes.table}>
        <OpTable
          label="Weights"
          fileName={`${run.name}-weights`}
          testId="weights"
          table={table}
          rows={rows}
          all={weights.length}
          types={types}
          metric={metric}
          onMetric={(id) => change({ metric: id }, 'replace')}
          filter={filter}
          onFilter={setFilter}
          columns={WEIGHT_COLUMNS}
          selected={selected}
          onSelect={(row) => change({ op: table.text('op', row), row: table.index(row), group: undefined })}
        />
      </div>
      <Splitter label="Width of the details" direction="vertical" split={panel} sign={-1} />
      <aside className={classes.details} style={{ width: rem(panel.size) }} aria-label="Details" tabIndex={0}>
        {selected === null ? (
          <Notice title="Choose a weight">Its values and its channels are shown here, of both models.</Notice>
        ) : (
          <div className={details.panel}>
            <h2 className={details.name}>{table.text('op', selected)}</h2>
            <div className={details.badges}>
              <span>{table.text('tensor', selected)}</span>
              <a
                href={formatRoute({
                  page: 'run',
                  run: run.name,
                  view: 'graph',
                  state: { op: table.text('op', selected), role: 'weight' },
                })}
              >
                in the graph
              </a>
            </div>
            <RowDetails key={selected} run={run.name} table={table} row={selected} />
          </div>
        )}
      </aside>
    </div>
  );
}

function selectedWeight(
  table: RowTable,
  weights: readonly number[],
  { row, op }: RunPageProps['state'],
): number | null {
  const chosen = row === undefined ? undefined : table.at(row);
  if (chosen !== undefined && table.role(chosen) === 'weight') return chosen;
  return weights.find((weight) => table.text('op', weight) === op) ?? null;
}
