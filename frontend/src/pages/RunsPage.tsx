import { Button, Checkbox, TextInput } from '@mantine/core';
import { useMemo, useState } from 'react';
import { useAbout, useRuns, useSource } from '../api/queries';
import type { RunSummary } from '../api/types';
import { Answer, Notice } from '../app/Notice';
import { formatRoute, go } from '../app/route';
import { countText } from '../app/text';
import type { Column } from '../table/column';
import { type Sort, sortRows } from '../table/order';
import { DeleteRuns } from './DeleteRuns';
import { EditRun } from './EditRun';
import { firstPage } from './run-pages';
import { RunProgress } from './RunProgress';
import { matchingRuns, runColumns } from './runs-table';
import classes from './RunsPage.module.css';

/** All runs: the newest first, to be searched, sorted, named, tagged, deleted, and compared two at a time. */
export function RunsPage() {
  const runs = useRuns();
  return (
    <Answer of={runs} what="the runs">
      {(found) => (found.length ? <RunList runs={found} /> : <NoRuns />)}
    </Answer>
  );
}

function NoRuns() {
  const workspace = useAbout().data?.workspace;
  return (
    <Notice title="No run yet">
      <p>Runs appear here as they begin{workspace ? `, from the folder ${workspace}` : ''}. To make one:</p>
      <p>
        <code>quantscope diagnose model.onnx --data samples/</code>
      </p>
    </Notice>
  );
}

function RunList({ runs }: { runs: readonly RunSummary[] }) {
  const { live } = useSource();
  const [words, setWords] = useState('');
  const [sort, setSort] = useState<Sort>({ column: 'age', descending: false });
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [editing, setEditing] = useState<RunSummary | null>(null);
  const [deleting, setDeleting] = useState<readonly string[]>([]);

  const columns = useMemo(() => runColumns(runs), [runs]);
  const rows = useMemo(() => {
    const column = columns.find(({ id }) => id === sort.column);
    return sortRows(matchingRuns(runs, words), column, sort.descending);
  }, [runs, columns, words, sort]);
  const picked = runs.filter((run) => chosen.has(run.name)).map((run) => run.name);
  const choose = (name: string, on: boolean): void => {
    const next = new Set(picked);
    if (on) next.add(name);
    else next.delete(name);
    setChosen(next);
  };

  return (
    <div className={classes.page}>
      <div className={classes.bar}>
        <h1>Runs</h1>
        <TextInput
          size="xs"
          w={300}
          placeholder="Search name, model, mode, tag"
          aria-label="Search runs"
          value={words}
          data-testid="search-runs"
          onChange={(event) => setWords(event.currentTarget.value)}
        />
        <span className={classes.count}>{countText(rows.length, 'run')}</span>
        <span className={classes.gap} />
        {live && (
          <Button
            variant="default"
            size="xs"
            disabled={!picked.length}
            data-testid="delete-runs"
            onClick={() => setDeleting(picked)}
          >
            Delete
          </Button>
        )}
        <Button
          size="xs"
          disabled={picked.length !== 2}
          data-testid="compare-runs"
          title={picked.length === 2 ? undefined : 'Choose two runs'}
          onClick={() => go({ page: 'compare', a: picked[0], b: picked[1] })}
        >
          Compare{picked.length ? ` ${picked.length} of 2` : ''}
        </Button>
      </div>
      <div className={classes.frame}>
        <table className={classes.table} data-testid="runs">
          <thead>
            <tr>
              <th className={classes.tick}>
                <span className="visually-hidden">Choose</span>
              </th>
              {columns.map((column) => (
                <Heading key={column.id} column={column} sort={sort} onSort={setSort} />
              ))}
              {live && (
                <th>
                  <span className="visually-hidden">Change</span>
                </th>
              )}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => {
              const run = runs[row];
              return (
                <tr key={run.name} data-testid="run" data-run={run.name} data-status={run.status}>
                  <td className={classes.tick}>
                    <Checkbox
                      size="xs"
                      aria-label={`Choose ${run.name}`}
                      checked={chosen.has(run.name)}
                      onChange={(event) => choose(run.name, event.currentTarget.checked)}
                    />
                  </td>
                  {columns.map((column) => (
                    <td
                      key={column.id}
                      className={column.number ? classes.number : column.id === 'mode' ? classes.mode : undefined}
                    >
                      <RunCell run={run} column={column} row={row} />
                    </td>
                  ))}
                  {live && (
                    <td className={classes.actions}>
                      <Button
                        size="compact-xs"
                        variant="subtle"
                        color="gray"
                        data-testid="edit-run"
                        onClick={() => setEditing(run)}
                      >
                        Edit
                      </Button>
                    </td>
                  )}
                </tr>
              );
            })}
          </tbody>
        </table>
        {!rows.length && <div className={classes.none}>No run matches “{words}”.</div>}
      </div>
      {editing && (
        <EditRun run={editing} onClose={() => setEditing(null)} onDelete={() => setDeleting([editing.name])} />
      )}
      {deleting.length > 0 && <DeleteRuns names={deleting} onClose={() => setDeleting([])} />}
    </div>
  );
}

function RunCell({ run, column, row }: { run: RunSummary; column: Column; row: number }) {
  if (column.id === 'status') {
    return (
      <>
        <RunProgress run={run} />
        {run.reason && <div className={classes.reason}>{run.reason}</div>}
      </>
    );
  }
  if (column.id === 'quantized' && run.accuracy) {
    return (
      <>
        {column.text(row)}
        <div className={classes.metric}>{run.accuracy.metric}</div>
      </>
    );
  }
  if (column.id !== 'name') return column.text(row);
  return (
    <>
      <a className={classes.name} href={formatRoute({ page: 'run', run: run.name, view: firstPage(run), state: {} })}>
        {run.name}
      </a>
      {run.tags.map((tag) => (
        <span key={tag} className={classes.tag}>
          {tag}
        </span>
      ))}
    </>
  );
}

function Heading({ column, sort, onSort }: { column: Column; sort: Sort; onSort(sort: Sort): void }) {
  const isSorted = sort.column === column.id;
  return (
    <th
      className={column.number ? classes.number : undefined}
      aria-sort={!isSorted ? 'none' : sort.descending ? 'descending' : 'ascending'}
    >
      <button type="button" onClick={() => onSort({ column: column.id, descending: isSorted && !sort.descending })}>
        {column.title}
        <span aria-hidden="true">{!isSorted ? '' : sort.descending ? ' ↓' : ' ↑'}</span>
      </button>
    </th>
  );
}
