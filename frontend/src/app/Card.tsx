import type { ReactNode } from 'react';
import classes from './Card.module.css';

interface Props {
  title: string;
  aside?: ReactNode;
  testId?: string;
  children: ReactNode;
}

export function Card({ title, aside, testId, children }: Props) {
  return (
    <section className={classes.card} data-testid={testId} aria-label={title}>
      <div className={classes.head}>
        <h2>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

export const Cards = ({ children }: { children: ReactNode }) => <div className={classes.cards}>{children}</div>;

/** Names and what they stand for. */
export function Facts({ facts }: { facts: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className={classes.facts}>
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
