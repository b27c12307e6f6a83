import type { RunSummary } from '../api/types';
import { Notice } from '../app/Notice';
import classes from './RunEnding.module.css';

/** How a run ended that did not finish, and why. */
export function RunEnding({ run: { status, reason } }: { run: RunSummary }) {
  if (status !== 'failed' && status !== 'killed') return null;
  return (
    <div className={classes.ending}>
      <Notice title={status === 'failed' ? 'This run failed' : 'This run was cut off'} tone="bad">
        <p>{reason || 'It left no reason.'}</p>
        <p>What it had measured by then is shown below.</p>
      </Notice>
    </div>
  );
}
