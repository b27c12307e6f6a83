import { Button } from '@mantine/core';
import { ApiProblem } from '../api/problem';
import { useEffectsOf, useGraph, useProfile, useRows } from '../api/queries';
import { Answer, Notice } from '../app/Notice';
import { useChangeState } from '../app/route';
import { GraphWorkbench } from './GraphWorkbench';
import type { RunPageProps } from './RunPage';

/** The model of a run as a graph, with its ops as a table and in full. */
export function GraphPage({ run, state }: RunPageProps) {
  const side = state.side ?? 'reference';
  const graph = useGraph(run.name, side);
  const rows = useRows(run.name);
  const effects = useEffectsOf(run);
  const timing = useProfile(run).data ?? null;
  const change = useChangeState();
  if (graph.error instanceof ApiProblem && graph.error.status === 404) {
    const title =
      run.status === 'running'
        ? 'The graph appears as soon as the run has it'
        : `This run holds no graph of the ${side} model`;
    return (
      <Notice title={title}>
        {side === 'quantized' && (
          <Button size="xs" variant="default" onClick={() => change({ side: undefined }, 'replace')}>
            Show the reference model
          </Button>
        )}
      </Notice>
    );
  }
  return (
    <Answer of={graph} what="the graph">
      {(model) => (
        <Answer of={rows} what="the compared tensors">
          {(table) => <GraphWorkbench {...{ run, model, table, effects, timing, side, state }} />}
        </Answer>
      )}
    </Answer>
  );
}
