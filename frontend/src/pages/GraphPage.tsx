import { useGraph, useRows } from '../api/queries';
import { Answer, Notice } from '../app/Notice';
import { GraphWorkbench } from './GraphWorkbench';
import type { RunPageProps } from './RunPage';

/** The model of a run as a graph, with its ops as a table and in full. */
export function GraphPage({ run, state }: RunPageProps) {
  const side = state.side ?? 'reference';
  const graph = useGraph(run.summary.name, side, run[side].ops);
  const rows = useRows(run.summary.name);
  if (run[side].ops === null && run.summary.status !== 'running') {
    return <Notice title={`This run holds no graph of the ${side} model`} />;
  }
  if (run[side].ops === null) return <Notice title="The graph appears as soon as the run has read the model" />;
  return (
    <Answer of={graph} what="the graph">
      {(model) => (
        <Answer of={rows} what="the compared tensors">
          {(table) => <GraphWorkbench run={run} model={model} table={table} side={side} state={state} />}
        </Answer>
      )}
    </Answer>
  );
}
