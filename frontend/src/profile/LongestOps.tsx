import { Card } from '../app/Card';
import { Name } from '../app/Name';
import { formatRoute } from '../app/route';
import { shareText } from '../app/text';
import type { ProfileTable } from './profile-table';
import classes from './Profile.module.css';
import { timeText } from './words';

const SHOWN = 10;

/** The ops that take longest, each a link to its kernels. */
export function LongestOps({ run, table }: { run: string; table: ProfileTable }) {
  const { main } = table;
  const rows = table.byTime().slice(0, SHOWN);
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
              <Name scope={table.sharedScope}>{table.name(row)}</Name>
            </a>
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
