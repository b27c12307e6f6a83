import { toNumber } from '../api/figures';
import type { Profile } from '../api/types';
import { Card } from '../app/Card';
import { shareText } from '../app/text';
import classes from './Profile.module.css';
import { type SumFacts, sumFacts } from './times';
import { largeText, timeText } from './words';

const LINES: readonly { title: string; hint: string; text(facts: SumFacts): string }[] = [
  {
    title: 'An inference',
    hint: 'Without the profiler: the faster half of runs made in turn',
    text: ({ latency }) => timeText(latency),
  },
  { title: 'Sum of all kernels', hint: 'As the profiler says', text: ({ kernels }) => timeText(kernels) },
  { title: 'Sum over inference', hint: '100 % is full agreement', text: ({ agreement }) => shareText(agreement) },
  { title: 'The profiler adds', hint: 'To each inference, while it runs', text: ({ overhead }) => shareText(overhead) },
  {
    title: 'Attributed to ops',
    hint: 'Share of the kernels’ time that has the names of your ops',
    text: ({ attributed }) => shareText(attributed),
  },
];

/** Whether the time per op adds up to the inference, and against what speed ops are held. */
export function SumsCard({ profile }: { profile: Profile }) {
  const sums = sumFacts(profile);
  const wrong = sums.filter(({ agrees }) => !agrees);
  const { peak } = profile;
  return (
    <Card title="How far the figures can be trusted" testId="sums">
      {wrong.map(({ side, agreement }) => (
        <p key={side} className={classes.warning} role="note">
          The kernels of the {side} model sum up to {shareText(agreement)} of its inference: more than 10 % apart. Take
          its time per op as proportions.
        </p>
      ))}
      <table className={classes.figures}>
        <thead>
          <tr>
            <th scope="col">
              <span className="visually-hidden">What</span>
            </th>
            {sums.map(({ side }) => (
              <th key={side} scope="col">
                {side === 'reference' ? 'Reference' : 'Quantized'}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {LINES.map(({ title, hint, text }) => (
            <tr key={title}>
              <th scope="row" title={hint}>
                {title}
              </th>
              {sums.map((facts) => (
                <td key={facts.side}>{text(facts)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      <p className={classes.words} data-testid="peak">
        The most that this processor was measured to do per second: {largeText(toNumber(peak.float_multiply_adds))}{' '}
        multiply-adds in float, {largeText(toNumber(peak.int8_multiply_adds))} of uint8 activations and int8 weights,{' '}
        {largeText(toNumber(peak.signed_multiply_adds))} of int8 both; {largeText(toNumber(peak.bytes_per_second))}B
        from and to memory.
      </p>
    </Card>
  );
}
