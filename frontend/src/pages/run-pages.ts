import type { RunSummary } from '../api/types';
import type { RunView } from '../app/route';

/** The pages of a run as the header lists them. */
export const RUN_PAGES: readonly { view: RunView; title: string; isFor(run: RunSummary): boolean }[] = [
  { view: 'overview', title: 'Overview', isFor: () => true },
  { view: 'graph', title: 'Graph', isFor: () => true },
  { view: 'weights', title: 'Weights', isFor: () => true },
  { view: 'suggestions', title: 'Suggestions', isFor: () => true },
  { view: 'trials', title: 'Trials', isFor: (run) => run.kind === 'tune' },
];
