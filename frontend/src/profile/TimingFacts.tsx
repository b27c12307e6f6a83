import type { Side } from '../api/types';
import details from '../details/details.module.css';
import type { ProfileTable } from './profile-table';
import { speedupText, timeText } from './words';

/** An op's time in both models, beside its other details. */
export function TimingFacts({ table, row }: { table: ProfileTable; row: number }) {
  const time = (side: Side): string => timeText(table.figures(side, 'total_us')[row]);
  const facts = [
    ...table.sides.map((side) => [`Time, ${side}`, time(side)] as const),
    ...(table.main === 'quantized' ? [['Speed-up', speedupText(table.speedup[row])] as const] : []),
    ['Added for it', timeText(table.figures(table.main, 'added_us')[row])] as const,
  ];
  return (
    <dl className={`${details.figures} ${details.outer}`} data-testid="timing-facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
