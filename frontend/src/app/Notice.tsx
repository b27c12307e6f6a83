import { Button, Loader } from '@mantine/core';
import type { ReactNode } from 'react';
import { ApiProblem } from '../api/problem';
import classes from './Notice.module.css';

/** What a page says while it has nothing to show: a title, and what to do. */
export function Notice({
  title,
  children,
  tone = 'plain',
}: {
  title: string;
  children?: ReactNode;
  tone?: 'plain' | 'bad';
}) {
  return (
    <div className={classes.notice} data-tone={tone} role={tone === 'bad' ? 'alert' : undefined}>
      <strong>{title}</strong>
      {children && <div className={classes.text}>{children}</div>}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <div className={classes.loading} role="status">
      <Loader size="sm" />
      <span>Loading {what}…</span>
    </div>
  );
}

/** What failed, and the next step. */
export function Failure({ error, retry }: { error: Error; retry?: () => void }) {
  const problem = error instanceof ApiProblem ? error : null;
  const needsToken = problem?.status === 401 || problem?.status === 403;
  return (
    <Notice title={needsToken ? 'This page needs the link with the token' : error.message} tone="bad">
      {needsToken && <p>Open the address that quantscope serve printed; it holds the token and is needed once.</p>}
      {problem?.accepted && <p>Accepted: {problem.accepted}</p>}
      {!needsToken && problem?.nextStep && <p>{problem.nextStep}</p>}
      {retry && (
        <Button size="xs" variant="default" onClick={retry}>
          Try again
        </Button>
      )}
    </Notice>
  );
}

interface Asked<T> {
  data: T | undefined;
  error: Error | null;
  refetch(): unknown;
}

/** The answer to a query, or how far it is. */
export function Answer<T>({ of, what, children }: { of: Asked<T>; what: string; children(data: T): ReactNode }) {
  if (of.data !== undefined) return children(of.data);
  if (of.error) return <Failure error={of.error} retry={() => void of.refetch()} />;
  return <Loading what={what} />;
}
