import type { ComponentType } from 'react';
import { useGraph, useRows, useRuns, useSummary } from '../api/queries';
import type { RunSummary } from '../api/types';
import { Failure, Loading, Notice } from '../app/Notice';
import { formatRoute, type RunState, type RunView } from '../app/route';
import { GraphPage } from './GraphPage';
import { OverviewPage } from './OverviewPage';
import { ProfilePage } from './ProfilePage';
import { firstPage, RUN_PAGES } from './run-pages';
import { SensitivityPage } from './SensitivityPage';
import { SuggestionsPage } from './SuggestionsPage';
import { TrialsPage } from './TrialsPage';
import { WeightsPage } from './WeightsPage';

export interface RunPageProps {
  run: RunSummary;
  state: RunState;
}

const PAGES: Record<RunView, ComponentType<RunPageProps>> = {
  overview: OverviewPage,
  graph: GraphPage,
  weights: WeightsPage,
  suggestions: SuggestionsPage,
  trials: TrialsPage,
  sensitivity: SensitivityPage,
  profile: ProfilePage,
};

const WHAT_IT_IS: Record<RunSummary['kind'], string> = {
  diagnose: 'It compared tensors and measured no times',
  tune: 'It is a search for a recipe',
  sensitivity: 'It measured what ops do to the output',
  profile: 'It measured times and compared no tensors',
};

/** One run, on the page that the address names. */
export function RunPage({ run, view, state }: { run: string; view: RunView; state: RunState }) {
  const runs = useRuns();
  const summary = useSummary(run);
  // Most pages need these: they are asked for at once, whichever page comes first.
  useRows(run);
  useGraph(run, state.side ?? 'reference');
  const Page = PAGES[view];
  if (runs.error) return <Failure error={runs.error} retry={() => void runs.refetch()} />;
  if (!runs.data) return <Loading what="the run" />;
  if (!summary) {
    return (
      <Notice title={`There is no run “${run}” here`}>
        <p>
          It may have been renamed or deleted. <a href="#/">See all runs</a>
        </p>
      </Notice>
    );
  }
  if (summary.status === 'damaged') {
    return (
      <Notice title="This run file cannot be read" tone="bad">
        <p>{summary.reason}</p>
      </Notice>
    );
  }
  const page = RUN_PAGES.find((known) => known.view === view)!;
  if (!page.isFor(summary)) {
    return (
      <Notice title={`This run has no page “${page.title}”`}>
        <p>
          {WHAT_IT_IS[summary.kind]}.{' '}
          <a href={formatRoute({ page: 'run', run, view: firstPage(summary), state: {} })}>See what it found</a>
        </p>
      </Notice>
    );
  }
  return <Page run={summary} state={state} />;
}
