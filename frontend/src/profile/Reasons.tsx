import { toNumber } from '../api/figures';
import type { Reason, Rewritten } from '../api/types';
import { Card } from '../app/Card';
import { countText } from '../app/text';
import classes from './Profile.module.css';
import { speedLine, speedTone, timeText } from './words';

const SHOWN = 4;
const SHOWN_OPS = 6;

interface ListProps {
  reasons: readonly Reason[];
  onOp(op: string): void;
}

interface Props extends ListProps {
  rewritten: Rewritten | null;
}

/** Why time is lost, what to change, and what the change brought where it was tried. */
export function Reasons({ reasons, rewritten, onOp }: Props) {
  return (
    <Card
      title="Where time is lost"
      testId="reasons"
      aside={
        <span className={classes.soft}>
          {reasons.length ? `${countText(reasons.length, 'reason')}, the costliest first` : ''}
        </span>
      }
    >
      {rewritten && <Written written={rewritten} />}
      {reasons.length ? (
        <>
          <List reasons={reasons.slice(0, SHOWN)} onOp={onOp} />
          {reasons.length > SHOWN && (
            <details className={classes.more}>
              <summary>{countText(reasons.length - SHOWN, 'more reason')}</summary>
              <List reasons={reasons.slice(SHOWN)} onOp={onOp} />
            </details>
          )}
        </>
      ) : (
        <p className={classes.words}>No rule finds where time is lost: the ops by their time are below.</p>
      )}
    </Card>
  );
}

/** The faster model that was written. */
function Written({ written }: { written: Rewritten }) {
  const { path, changes, measured, samples } = written;
  const { gain, low, high, before_us: before, after_us: after } = measured;
  return (
    <div className={classes.written} data-testid="rewritten">
      <p>
        Written: <strong>{path}</strong>, {speedLine({ speedup: gain, low, high })} than the quantized model,{' '}
        {timeText(toNumber(before))} → {timeText(toNumber(after))}
      </p>
      <p>
        Its outputs are those of the quantized model, bit for bit, on {countText(samples, 'sample')}. Changed:{' '}
        {changes.join('; ')}.
      </p>
    </div>
  );
}

function List({ reasons, onOp }: ListProps) {
  return (
    <ol className={classes.reasons}>
      {reasons.map((reason, i) => (
        <li key={`${reason.rule} ${i}`} data-testid="reason">
          <One reason={reason} onOp={onOp} />
        </li>
      ))}
    </ol>
  );
}

function One({ reason, onOp }: { reason: Reason; onOp(op: string): void }) {
  const { title, evidence, change, ops, tried, exact, cost_us: cost } = reason;
  return (
    <article className={classes.reason}>
      <div className={classes.reasonHead}>
        <h3>{title}</h3>
        {tried ? (
          <span
            className={classes.gain}
            data-tone={speedTone({ speedup: tried.gain, low: tried.low, high: tried.high })}
            data-testid="tried"
          >
            tried: {speedLine({ speedup: tried.gain, low: tried.low, high: tried.high })}
          </span>
        ) : (
          toNumber(cost) > 0 && <span className={classes.gain}>about {timeText(toNumber(cost))} at stake</span>
        )}
      </div>
      <p>{evidence}</p>
      <p>
        <strong>Change:</strong> {change}
        {exact && (
          <>
            . Outputs stay the same to the last bit: <code>quantscope profile --output</code> writes the model
          </>
        )}
        {tried && (
          <span className={classes.soft}>
            {' '}
            Tried: {timeText(toNumber(tried.before_us))} before, {timeText(toNumber(tried.after_us))} after.
          </span>
        )}
      </p>
      {ops.length > 0 && <Ops ops={ops} onOp={onOp} />}
    </article>
  );
}

function Ops({ ops, onOp }: { ops: readonly string[]; onOp(op: string): void }) {
  const button = (op: string) => (
    <button key={op} type="button" className={classes.op} onClick={() => onOp(op)}>
      {op}
    </button>
  );
  return (
    <div className={classes.ops}>
      {ops.slice(0, SHOWN_OPS).map(button)}
      {ops.length > SHOWN_OPS && (
        <details>
          <summary>{countText(ops.length - SHOWN_OPS, 'more op')}</summary>
          {ops.slice(SHOWN_OPS).map(button)}
        </details>
      )}
    </div>
  );
}
