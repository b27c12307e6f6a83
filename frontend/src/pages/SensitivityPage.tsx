import { useSensitivity } from '../api/queries';
import type { RunSummary, Sensitivities } from '../api/types';
import { Answer, Notice } from '../app/Notice';
import { Effects } from '../effects/Effects';
import { RunEnding } from './RunEnding';
import type { RunPageProps } from './RunPage';
import classes from './SensitivityPage.module.css';

/** What each op or module does to the model's output, as a run of its own measured it. */
export function SensitivityPage({ run }: RunPageProps) {
  const found = useSensitivity(run.name);
  return (
    <Answer of={found} what="what was measured">
      {(effects) => (
        <div className={classes.page}>
          <RunEnding run={run} />
          {effects.rows.length ? (
            <Effects run={run.name} found={effects} />
          ) : (
            <Nothing run={run} most={effects.most_ops} />
          )}
        </div>
      )}
    </Answer>
  );
}

function Nothing({ run, most }: { run: RunSummary; most: Sensitivities['most_ops'] }) {
  if (run.status !== 'running') return <Notice title="Nothing was measured" />;
  return (
    <Notice title="The measurement begins">
      <p>
        First both models run over the samples, then up to {most} ops are measured one by one, and appear here as they
        are.
      </p>
    </Notice>
  );
}
