import details from '../details/details.module.css';
import type { Metric } from '../metrics/metrics';
import type { Effect } from './effects';

/** What one op or module does to the output, beside its other details. */
export function EffectFacts({ effect, metric }: { effect: Effect; metric: Metric }) {
  const { text } = metric;
  const facts = [
    ['Damage alone', text(effect.alone)],
    ['95 % interval', Number.isNaN(effect.low) ? '–' : `${text(effect.low)} … ${text(effect.high)}`],
    ['Gain in float', text(effect.gain)],
    ['Place', effect.place],
  ] as const;
  return (
    <dl className={`${details.figures} ${details.outer}`} data-testid="effect-facts">
      {facts.map(([name, value]) => (
        <div key={name} title={name === 'Damage alone' ? metric.title : undefined}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
