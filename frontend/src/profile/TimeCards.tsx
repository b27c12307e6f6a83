import { Card } from '../app/Card';
import { formatRoute } from '../app/route';
import { shareText } from '../app/text';
import type { ProfileTable } from './profile-table';
import classes from './Profile.module.css';
import { settingText, Verdict } from './SpeedCard';
import { toNumber } from '../api/figures';
import { timeText } from './words';

const SHOWN_OPS = 8;
const SHOWN_REASONS = 3;

interface Props {
  run: string;
  table: ProfileTable;
  /** Whether the run is about nothing but time: then the ops are shown too. */
  alone: boolean;
}

/** The speed of both models in short, and the ops that take longest: the way to the page that has all of it. */
export function TimeCards({ run, table, alone }: Props) {
  const { profile } = table;
  const page = formatRoute({ page: 'run', run, view: 'profile', state: {} });
  const compared = profile.latencies.find(
    ({ batch, threads }) => batch === profile.batch && threads === profile.threads,
  );
  return (
    <>
      <Card title="Speed" testId="speed-overview" aside={<a href={page}>all times</a>}>
        {compared?.quantized && <Verdict compared={compared} />}
        {compared && (
          <p className={classes.words}>
            {timeText(toNumber(compared.reference.p50_us))}
            {compared.quantized && ` → ${timeText(toNumber(compared.quantized.p50_us))}`} per inference at{' '}
            {settingText(compared)}
          </p>
        )}
        {profile.reasons.length > 0 && (
          <ul className={classes.short}>
            {profile.reasons.slice(0, SHOWN_REASONS).map((reason, i) => (
              <li key={i}>
                <a href={page}>{reason.title}</a>
              </li>
            ))}
          </ul>
        )}
      </Card>
      {alone && <Longest run={run} table={table} />}
    </>
  );
}

function Longest({ run, table }: { run: string; table: ProfileTable }) {
  const { main } = table;
  const rows = table.byTime().slice(0, SHOWN_OPS);
  const [times, shares] = [table.figures(main, 'total_us'), table.figures(main, 'share')];
  const longest = Math.max(...rows.map((row) => times[row] || 0), 1);
  return (
    <Card
      title={main === 'quantized' ? 'Where the quantized model’s time goes' : 'Where the time goes'}
      testId="longest"
    >
      <ol className={classes.longest}>
        {rows.map((row) => (
          <li key={row}>
            <a
              href={formatRoute({ page: 'run', run, view: 'profile', state: { op: table.name(row) } })}
              title={table.name(row)}
            >
              {table.name(row)}
            </a>
            <span className={classes.soft}>{table.type(row)}</span>
            <span className={classes.track}>
              <span data-side={main} style={{ width: `${(100 * (times[row] || 0)) / longest}%` }} />
            </span>
            <span className={classes.number}>{timeText(times[row])}</span>
            <span className={classes.number}>{shareText(shares[row])}</span>
          </li>
        ))}
      </ol>
    </Card>
  );
}
