import { toNumber } from '../api/figures';
import type { Accuracy } from '../api/types';
import { Card } from '../app/Card';
import { countText, numberText } from '../app/text';
import { differenceText, isClearlyWorse, scoreText } from './accuracy';
import classes from './AccuracyCard.module.css';

/** A loss of less than this part of the reference's value raises no alarm. */
const SMALL_LOSS = 0.01;

/** One metric of both models, their ratio, and the interval of the difference. */
export function AccuracyCard({ accuracy }: { accuracy: Accuracy }) {
  const { metric, samples } = accuracy;
  const [reference, quantized, ratio] = [accuracy.reference, accuracy.quantized, accuracy.ratio].map(toNumber);
  const [difference, low, high] = [accuracy.difference, accuracy.low, accuracy.high].map(toNumber);
  const real = isClearlyWorse(accuracy);
  const worse = real && Math.abs(difference) > SMALL_LOSS * Math.abs(reference);
  return (
    <Card
      title={`Accuracy: ${metric}`}
      testId="accuracy"
      aside={samples === null ? null : <span className={classes.samples}>{countText(samples, 'sample')}</span>}
    >
      <dl className={classes.figures}>
        <div>
          <dt>Reference</dt>
          <dd data-testid="accuracy-reference">{scoreText(metric, reference)}</dd>
        </div>
        <div>
          <dt>Quantized</dt>
          <dd data-testid="accuracy-quantized" data-worse={worse}>
            {scoreText(metric, quantized)}
          </dd>
        </div>
        <div>
          <dt>Ratio</dt>
          <dd data-testid="accuracy-ratio">
            {Number.isNaN(ratio) ? numberText(ratio) : `${numberText(100 * ratio)} %`}
          </dd>
        </div>
      </dl>
      <p className={classes.interval}>
        Difference <strong>{differenceText(metric, difference)}</strong>
        {!Number.isNaN(low) && (
          <>
            , 95 % interval {differenceText(metric, low)} … {differenceText(metric, high)}
          </>
        )}
        {'. '}
        {worse ? 'The loss is real.' : real ? 'The loss is real, though small.' : 'Chance alone may explain it.'}
      </p>
      <Interval low={low} high={high} difference={difference} worse={worse} />
    </Card>
  );
}

/** The interval against no change. */
function Interval({ low, high, difference, worse }: { low: number; high: number; difference: number; worse: boolean }) {
  const ends = [low, high, difference, 0];
  if (!ends.every(Number.isFinite)) return null;
  const [left, right] = [Math.min(...ends), Math.max(...ends)];
  const at = (value: number): number => 4 + (92 * (value - left)) / (right - left || 1);
  return (
    <svg
      className={classes.picture}
      viewBox="0 0 100 12"
      preserveAspectRatio="none"
      aria-hidden="true"
      data-worse={worse}
    >
      <line x1="0" x2="100" y1="6" y2="6" className={classes.axis} />
      <line x1={at(0)} x2={at(0)} y1="0" y2="12" className={classes.zero} />
      <line x1={at(low)} x2={at(high)} y1="6" y2="6" className={classes.range} />
      <line x1={at(difference)} x2={at(difference)} y1="2" y2="10" className={classes.middle} />
    </svg>
  );
}
