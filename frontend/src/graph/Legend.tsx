import { ScaleBar } from '../colour/ScaleBar';
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
      <ScaleBar ramp={palette.ramp} worst={valueText(metric, worst)} best={valueText(metric, best)} />
      <span className={classes.hollow} aria-hidden="true" />
      <span>no value</span>
    </div>
  );
}
