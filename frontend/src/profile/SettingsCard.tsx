import { toNumber } from '../api/figures';
import type { Profile } from '../api/types';
import { Card } from '../app/Card';
import { numberText } from '../app/text';
import classes from './Profile.module.css';
import { speedLine, speedTone, timeText } from './words';

/** Latency at every batch size and number of threads that was measured, with and without optimization. */
export function SettingsCard({ profile }: { profile: Profile }) {
  const { latencies, quantized, batch, threads, optimized } = profile;
  const unlike = latencies.some((each) => !each.optimized);
  return (
    <Card title="All settings" testId="settings">
      <div className={classes.scroll} tabIndex={0} role="group" aria-label="Latency by batch and threads">
        <table className={classes.figures}>
          <thead>
            <tr>
              <th scope="col">Batch</th>
              <th scope="col">Threads</th>
              {unlike && <th scope="col">Optimized</th>}
              <th scope="col">Reference</th>
              {quantized && (
                <>
                  <th scope="col">Quantized</th>
                  <th scope="col">samples/s</th>
                  <th scope="col">Speed-up</th>
                </>
              )}
            </tr>
          </thead>
          <tbody>
            {latencies.map((each) => (
              <tr
                key={`${each.batch} ${each.threads} ${each.optimized}`}
                data-profiled={each.batch === batch && each.threads === threads && each.optimized === optimized}
              >
                <td>{each.batch}</td>
                <td>{each.threads || 'default'}</td>
                {unlike && <td>{each.optimized ? 'yes' : 'no'}</td>}
                <td>{timeText(toNumber(each.reference.p50_us))}</td>
                {quantized && (
                  <>
                    <td>{timeText(toNumber(each.quantized?.p50_us))}</td>
                    <td>{numberText(toNumber(each.quantized?.throughput))}</td>
                    <td className={`${classes.tone} ${classes.wraps}`} data-tone={speedTone(each)}>
                      {speedLine(each)}
                      {!each.settled && <span title="The interval did not come within ±3 %"> *</span>}
                    </td>
                  </>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p className={classes.words}>
        Median inferences. The marked setting is the one whose ops were timed.
        {unlike && ` Not optimized is without ${profile.optimization}.`}
        {latencies.some(({ settled, quantized: second }) => second && !settled) && ' * not within ±3 %'}
      </p>
    </Card>
  );
}
