import { toNumber } from '../api/figures';
import type { Latency, LatencyComparison, Profile } from '../api/types';
import { Card } from '../app/Card';
import { countText, numberText } from '../app/text';
import classes from './Profile.module.css';
import { speedTone, speedWords, timeText } from './words';

/** Batch size and threads in words, and whether optimization was left out. */
export const settingText = ({ batch, threads, optimized }: Pick<Profile, 'batch' | 'threads' | 'optimized'>): string =>
  [
    `batch ${batch}`,
    threads ? countText(threads, 'thread') : 'default threads',
    ...(optimized ? [] : ['not optimized']),
  ].join(', ');

/** How much faster the quantized model is, or slower; the time of one model alone. */
export function Verdict({ compared }: { compared: LatencyComparison }) {
  if (!compared.quantized) {
    return (
      <p className={classes.verdict} data-testid="verdict">
        <strong>{timeText(toNumber(compared.reference.p50_us))}</strong> <span>per inference</span>
      </p>
    );
  }
  const { verdict, interval } = speedWords(compared);
  return (
    <p className={classes.verdict} data-tone={speedTone(compared)} data-testid="verdict">
      <strong>{verdict}</strong> {interval && <span>({interval})</span>}
    </p>
  );
}

const FIGURES = ['p50_us', 'p90_us', 'p99_us'] as const;
const CPU_FIGURES = ['cpu_p50_us', 'cpu_p90_us', 'cpu_p99_us'] as const;

/** Latency of both models at one setting, and what it comes to. */
export function SpeedCard({ compared }: { compared: LatencyComparison }) {
  const { reference, quantized } = compared;
  return (
    <Card title="Latency" testId="speed" aside={<span className={classes.soft}>{settingText(compared)}</span>}>
      <Verdict compared={compared} />
      {quantized && <p className={classes.words}>{trust(compared)}</p>}
      <div className={classes.scroll} tabIndex={0} role="group" aria-label="Latencies">
        <table className={classes.figures}>
          <thead>
            <tr>
              <td />
              <th colSpan={3} scope="colgroup">
                <span>wall time</span>
              </th>
              <th colSpan={3} scope="colgroup">
                <span>CPU time</span>
              </th>
              <td />
            </tr>
            <tr>
              <th scope="col">
                <span className="visually-hidden">Model</span>
              </th>
              {['p50', 'p90', 'p99', 'p50', 'p90', 'p99'].map((name, i) => (
                <th key={i} scope="col">
                  {name}
                </th>
              ))}
              <th scope="col">samples/s</th>
            </tr>
          </thead>
          <tbody>
            <Line name="Reference" latency={reference} tone="reference" />
            {quantized && <Line name="Quantized" latency={quantized} tone="quantized" />}
          </tbody>
        </table>
      </div>
      <p className={classes.words}>
        {countText(reference.runs, 'inference')} of {quantized ? 'each' : 'the'} model.
      </p>
    </Card>
  );
}

function Line({ name, latency, tone }: { name: string; latency: Latency; tone: string }) {
  return (
    <tr data-testid={`latency-${tone}`}>
      <th scope="row">
        <span className={classes.mark} data-side={tone} aria-hidden="true" />
        {name}
      </th>
      {[...FIGURES, ...CPU_FIGURES].map((figure) => (
        <td key={figure} className={figure === 'p50_us' ? classes.strong : undefined}>
          {timeText(toNumber(latency[figure]))}
        </td>
      ))}
      <td>{numberText(toNumber(latency.throughput))}</td>
    </tr>
  );
}

/** How far the interval can be trusted. */
function trust({ rounds, settled, low }: LatencyComparison): string {
  if (low === null) return 'One measurement: there is no interval.';
  const said = `The interval holds the true ratio with 95 % confidence, from ${countText(rounds, 'round')} of both models in turn`;
  return settled ? `${said}.` : `${said}. It did not come within ±3 % in the time there was.`;
}
