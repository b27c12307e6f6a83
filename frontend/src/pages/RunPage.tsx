import type { ComponentType } from 'react';
import { useRun, useRuns, useSummary } from '../api/queries';
import type { RunDocument } from '../api/types';
import { Answer, Failure, Notice } from '../app/Notice';
import type { RunState, RunView } from '../app/route';
import { GraphPage } from './GraphPage';
import { OverviewPage } from './OverviewPage';
import { SuggestionsPage } from './SuggestionsPage';
import { TrialsPage } from './TrialsPage';
import { WeightsPage } from './WeightsPage';

export interface RunPageProps {
  run: RunDocument;
  state: RunState;
}

const PAGES: Record<RunView, ComponentType<RunPageProps>> = {
  overview: OverviewPage,
  graph: GraphPage,
  weights: WeightsPage,
  suggestions: SuggestionsPage,
  trials: TrialsPage,
};

/** One run, on the page that the address names. */
export function RunPage({ run, view, state }: { run: string; view: RunView; state: RunState }) {
  const runs = useRuns();
  const summary = useSummary(run);
  const document = useRun(run);
  const Page = PAGES[view];
  if (runs.error) return <Failure error={runs.error} retry={() => void runs.refetch()} />;
  if (runs.data && !summary) {
    return (
      <Notice title={`There is no run “${run}” here`}>
        <p>
          It may have been renamed or deleted. <a href="#/">See all runs</a>
        </p>
      </Notice>
    );
  }
  if (summary?.status === 'damaged') {
    return (
      <Notice title="This run file cannot be read" tone="bad">
        <p>{summary.reason}</p>
      </Notice>
    );
  }
  return (
    <Answer of={document} what="the run">
      {(found) => <Page run={found} state={state} />}
    </Answer>
  );
}
