import { toNumber } from '../api/figures';
import { Card } from '../app/Card';
import { formatRoute } from '../app/route';
import type { ProfileTable } from './profile-table';
import classes from './Profile.module.css';
import { settingText, Verdict } from './SpeedCard';
import { timeText } from './words';

const SHOWN_REASONS = 3;

/** The speed of both models in short, and the way to the page that has all of it. */
export function SpeedSummary({ run, table }: { run: string; table: ProfileTable }) {
  const { reasons } = table.profile;
  const compared = table.compared;
  const page = formatRoute({ page: 'run', run, view: 'profile', state: {} });
  return (
    <Card title="Speed" testId="speed-summary" aside={<a href={page}>all times</a>}>
      {compared && <Verdict compared={compared} />}
      {compared && (
        <p className={classes.words}>
          {compared.quantized &&
            `${timeText(toNumber(compared.reference.p50_us))} → ${timeText(toNumber(compared.quantized.p50_us))} per inference, `}
          {settingText(compared)}
        </p>
      )}
      {reasons.length > 0 && (
        <ul className={classes.short}>
          {reasons.slice(0, SHOWN_REASONS).map((reason, i) => (
            <li key={i}>{reason.title}</li>
          ))}
        </ul>
      )}
    </Card>
  );
}
