import classes from './ScaleBar.module.css';

interface Props {
  ramp: readonly string[];
  /** What both ends of the colours stand for, in words. */
  worst: string;
  best: string;
}

/** What colours mean. */
export function ScaleBar({ ramp, worst, best }: Props) {
  return (
    <span className={classes.scale}>
      <span>{worst}</span>
      <span
        className={classes.bar}
        style={{ background: `linear-gradient(90deg, ${ramp.join()})` }}
        aria-hidden="true"
      />
      <span>{best}</span>
    </span>
  );
}
