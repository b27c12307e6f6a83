import type { Metric } from '../metrics/metrics';
import { valueText } from '../metrics/metrics';
import classes from './Legend.module.css';
import type { Palette } from './palette';
import type { GraphValues } from './values';

/** What the colours mean. */
export function Legend({ metric, values, palette }: { metric: Metric; values: GraphValues; palette: Palette }) {
  const { worst, best } = values.scale;
  return (
    <div className={classes.legend} data-testid="legend">
      <strong>{metric.title}</strong>
      <span>{valueText(metric, worst)}</span>
      <span
        className={classes.bar}
        style={{ background: `linear-gradient(90deg, ${palette.ramp.join()})` }}
        aria-hidden="true"
      />
      <span>{valueText(metric, best)}</span>
      <span className={classes.hollow} aria-hidden="true" />
      <span>no value</span>
    </div>
  );
}
