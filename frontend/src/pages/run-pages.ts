import type { RunSummary } from '../api/types';
import type { RunView } from '../app/route';

interface RunPage {
  view: RunView;
  title: string;
  isFor(run: RunSummary): boolean;
}

const comparesTensors = ({ kind }: RunSummary): boolean => kind === 'diagnose';

/** The pages of a run as the header lists them. */
export const RUN_PAGES: readonly RunPage[] = [
  { view: 'overview', title: 'Overview', isFor: () => true },
  { view: 'trials', title: 'Trials', isFor: ({ kind }) => kind === 'tune' },
  { view: 'sensitivity', title: 'Effect on output', isFor: ({ kind }) => kind === 'sensitivity' },
  { view: 'profile', title: 'Profile', isFor: ({ kind, has_profile: has }) => has || kind === 'profile' },
  { view: 'graph', title: 'Graph', isFor: () => true },
  { view: 'weights', title: 'Weights', isFor: comparesTensors },
  { view: 'suggestions', title: 'Suggestions', isFor: comparesTensors },
];

/** The page that shows what a run was made for. */
export const firstPage = ({ kind }: RunSummary): RunView => FIRST_PAGES[kind];

const FIRST_PAGES: Record<RunSummary['kind'], RunView> = {
  diagnose: 'overview',
  tune: 'trials',
  sensitivity: 'sensitivity',
  profile: 'profile',
};
