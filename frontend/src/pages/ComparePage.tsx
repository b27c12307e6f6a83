import { Button, Select, TextInput } from '@mantine/core';
import { useMemo, useState } from 'react';
import { toNumber } from '../api/figures';
import { useComparison } from '../api/queries';
import type { Comparison, RunSummary } from '../api/types';
import { saveText } from '../app/download';
import { Answer } from '../app/Notice';
import { formatRoute, go } from '../app/route';
import { bytesText, countText } from '../app/text';
import { type Dot, Scatter } from '../charts/Scatter';
import { metricOf, valueText } from '../metrics/metrics';
import { tableCsv } from '../table/csv';
import { DataTable } from '../table/DataTable';
import { filterRows, NO_FILTER } from '../table/filter';
import { type Sort, sortRows } from '../table/order';
import { scoreText } from './accuracy';
import { COMPARED_METRICS, compareColumns, figuresOf, gainsOf } from './compare-columns';
import classes from './ComparePage.module.css';

/** Two runs side by side: their accuracy, and every tensor that both compared. */
export function ComparePage({ a, b }: { a: string; b: string }) {
  const comparison = useComparison(a, b);
  return (
    <Answer of={comparison} what="both runs">
      {(found) => <Compared comparison={found} />}
    </Answer>
  );
}

function Compared({ comparison }: { comparison: Comparison }) {
  const { a, b } = comparison;
  const [metricId, setMetric] = useState('sqnr_db');
  const [words, setWords] = useState('');
  const [sort, setSort] = useState<Sort>({ column: 'gain', descending: false });
  const [selected, setSelected] = useState<number | null>(null);
  const metric = metricOf(metricId);
  const columns = useMemo(() => compareColumns(comparison, metric), [comparison, metric]);
  const gains = useMemo(() => gainsOf(comparison, metric), [comparison, metric]);
  const rows = useMemo(() => {
    const all = Array.from(comparison.op.keys());
    const shown = filterRows(
      all,
      { ...NO_FILTER, words },
      {
        text: (row) => `${comparison.op[row]} ${comparison.op_type[row]} ${comparison.role[row]}`,
        type: (row) => comparison.op_type[row],
        metric: (row) => gains[row],
        better: 'high',
      },
    );
    return sortRows(
      shown,
      columns.find(({ id }) => id === sort.column),
      sort.descending,
    );
  }, [comparison, columns, gains, words, sort]);

  return (
    <div className={classes.page}>
      <div className={classes.runs}>
        <RunCard letter="A" run={a} />
        <RunCard letter="B" run={b} />
        <Tally gains={gains} />
        <Button variant="default" size="xs" onClick={() => go({ page: 'compare', a: b.name, b: a.name })}>
          Swap
        </Button>
      </div>
      <div className={classes.panes}>
        <div className={classes.tablePane}>
          <div className={classes.bar}>
            <TextInput
              size="xs"
              w={220}
              placeholder="Filter ops"
              aria-label="Filter by words"
              value={words}
              onChange={(event) => setWords(event.currentTarget.value)}
            />
            <Select
              size="xs"
              w={170}
              aria-label="Metric"
              data-testid="compare-metric"
              data={COMPARED_METRICS.map(({ id, title }) => ({ value: id, label: title }))}
              value={metric.id}
              allowDeselect={false}
              comboboxProps={{ transitionProps: { duration: 0 } }}
              onChange={(id) => id && setMetric(id)}
            />
            <span className={classes.count}>{countText(rows.length, 'row')}</span>
            {selected !== null && <Links comparison={comparison} row={selected} />}
            <Button
              size="compact-xs"
              variant="default"
              onClick={() => saveText(`${a.name}-${b.name}.csv`, tableCsv(columns, rows), 'text/csv')}
            >
              CSV
            </Button>
          </div>
          <div className={classes.table}>
            <DataTable
              label="Tensors of both runs"
              testId="compared"
              columns={columns}
              rows={rows}
              sort={sort}
              onSort={setSort}
              selected={selected}
              onSelect={setSelected}
              empty={
                comparison.op.length
                  ? 'No row passes the filter.'
                  : 'Neither run compared tensors: both measured something else.'
              }
            />
          </div>
        </div>
        {gains.some((gain) => !Number.isNaN(gain)) && (
          <div className={classes.picture}>
            <Picture comparison={comparison} metricId={metricId} selected={selected} onPick={setSelected} />
          </div>
        )}
      </div>
    </div>
  );
}

function Picture({
  comparison,
  metricId,
  selected,
  onPick,
}: {
  comparison: Comparison;
  metricId: string;
  selected: number | null;
  onPick(row: number): void;
}) {
  const metric = metricOf(metricId);
  const dots = useMemo<Dot[]>(() => {
    const [a, b] = [figuresOf(comparison.in_a, metric.id), figuresOf(comparison.in_b, metric.id)];
    const shown = (value: number): number => (metric.log ? Math.log10(value) : value);
    return comparison.op.map((op, row) => ({
      x: shown(a[row]),
      y: shown(b[row]),
      name: op,
      lines: [
        `${comparison.role[row]}, ${comparison.op_type[row]}`,
        `A ${valueText(metric, a[row])}`,
        `B ${valueText(metric, b[row])}`,
      ],
    }));
  }, [comparison, metric]);
  const prefix = metric.log ? 'log10 ' : '';
  const side = metric.better === 'high' ? 'above' : 'below';
  return (
    <Scatter
      title={`${metric.title}: ${side} the line B is better`}
      description="Every dot is a tensor that both runs compared."
      fileName={`${comparison.a.name}-${comparison.b.name}-${metric.id}`}
      testId="compare-picture"
      height={420}
      xTitle={`A: ${prefix}${metric.title}${metric.unit && ` (${metric.unit})`}`}
      yTitle={`B: ${prefix}${metric.title}${metric.unit && ` (${metric.unit})`}`}
      dots={dots}
      selected={selected}
      diagonal
      onPick={onPick}
    />
  );
}

function RunCard({ letter, run }: { letter: string; run: RunSummary }) {
  const accuracy = run.accuracy;
  return (
    <section className={classes.run} aria-label={`Run ${letter}`} data-testid={`run-${letter.toLowerCase()}`}>
      <span className={classes.letter}>{letter}</span>
      <div>
        <a className={classes.name} href={formatRoute({ page: 'run', run: run.name, view: 'overview', state: {} })}>
          {run.name}
        </a>
        <div className={classes.soft}>
          {[run.model, run.mode, run.quantized_bytes === null ? '' : bytesText(run.quantized_bytes)]
            .filter(Boolean)
            .join(' · ')}
        </div>
      </div>
      {accuracy && (
        <div className={classes.score}>
          <strong>{scoreText(accuracy.metric, toNumber(accuracy.quantized))}</strong>
          <div className={classes.soft}>
            {accuracy.metric}, reference {scoreText(accuracy.metric, toNumber(accuracy.reference))}
          </div>
        </div>
      )}
    </section>
  );
}

function Tally({ gains }: { gains: Float64Array }) {
  const better = gains.filter((gain) => gain > 0).length;
  const worse = gains.filter((gain) => gain < 0).length;
  const alone = gains.filter(Number.isNaN).length;
  if (alone === gains.length)
    return (
      <p className={classes.tally} data-testid="tally">
        No tensor was compared in both runs, so that there is nothing to set side by side.
      </p>
    );
  return (
    <p className={classes.tally} data-testid="tally">
      In B <strong>{better}</strong> tensors are better and <strong>{worse}</strong> worse than in A
      {alone > 0 && `; ${alone} cannot be compared`}.
    </p>
  );
}

function Links({ comparison, row }: { comparison: Comparison; row: number }) {
  const op = comparison.op[row];
  return (
    <span className={classes.links}>
      {(
        [
          ['A', comparison.a, comparison.in_a],
          ['B', comparison.b, comparison.in_b],
        ] as const
      ).map(
        ([letter, run, side]) =>
          side.index[row] >= 0 && (
            <a
              key={letter}
              href={formatRoute({
                page: 'run',
                run: run.name,
                view: 'graph',
                state: { op, row: side.index[row], role: comparison.role[row] },
              })}
            >
              open in {letter}
            </a>
          ),
      )}
    </span>
  );
}
