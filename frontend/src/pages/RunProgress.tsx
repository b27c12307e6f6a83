import { Progress } from '@mantine/core';
import type { RunSummary } from '../api/types';
import { durationText, numberText } from '../app/text';
import classes from './RunProgress.module.css';

const WORDS = {
  running: 'running',
  finished: 'finished',
  failed: 'failed',
  killed: 'killed',
  damaged: 'damaged',
} as const;

/** How far a running run is; how any other one ended, and why. */
export function RunProgress({ run }: { run: RunSummary }) {
  const { status, progress, reason } = run;
  if (status !== 'running') {
    return (
      <span className={classes.status} data-status={status} data-testid="status" title={reason || undefined}>
        {WORDS[status]}
      </span>
    );
  }
  if (!progress)
    return (
      <span className={classes.status} data-status="running" data-testid="status">
        running
      </span>
    );
  const { stage, done, total, rate, seconds_left: left } = progress;
  const percent = total ? (100 * done) / total : 0;
  const words = [
    total ? `${done.toLocaleString('en')} of ${total.toLocaleString('en')}` : done.toLocaleString('en'),
    ...(rate ? [`${numberText(rate, 3)}/s`] : []),
    ...(left !== null ? [`${durationText(left)} left`] : []),
  ];
  return (
    <span className={classes.progress} data-testid="status">
      <span className={classes.stage}>{stage}</span>
      <Progress value={percent} animated={!total} w={90} size="sm" aria-label={`${stage}: ${Math.round(percent)} %`} />
      <span className={classes.words}>{words.join(' · ')}</span>
    </span>
  );
}
