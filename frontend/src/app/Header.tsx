import { ActionIcon, Select, Tooltip, useMantineColorScheme } from '@mantine/core';
import { useRuns, useSource, useSummary } from '../api/queries';
import { RUN_PAGES } from '../pages/run-pages';
import { RunProgress } from '../pages/RunProgress';
import classes from './Header.module.css';
import { formatRoute, go, type Route } from './route';
import { useDark } from './use-dark';

/** Where the reader is, and the ways from there. */
export function Header({ route, connected }: { route: Route; connected: boolean }) {
  const { live } = useSource();
  return (
    <header className={classes.header}>
      <a className={classes.brand} href="#/" aria-label="quantscope: all runs">
        <Logo />
        quantscope
      </a>
      {route.page === 'run' && <RunNavigation route={route} />}
      {route.page === 'compare' && <span className={classes.where}>Compare</span>}
      <span className={classes.gap} />
      {!live && <span className={classes.badge}>offline page</span>}
      {!connected && (
        <span className={classes.lost} role="status">
          no connection to the server, trying again
        </span>
      )}
      <ThemeToggle />
    </header>
  );
}

function RunNavigation({ route }: { route: Route & { page: 'run' } }) {
  const runs = useRuns().data ?? [];
  const summary = useSummary(route.run);
  const pages = RUN_PAGES.filter((page) => !summary || page.isFor(summary));
  return (
    <>
      <Select
        aria-label="Run"
        size="xs"
        w={220}
        searchable={runs.length > 8}
        data={runs.map((run) => run.name)}
        value={route.run}
        allowDeselect={false}
        comboboxProps={{ transitionProps: { duration: 0 } }}
        onChange={(name) => name && go({ ...route, run: name, state: {} })}
        data-testid="run-select"
      />
      <nav className={classes.pages} aria-label="Pages of the run">
        {pages.map(({ view, title }) => (
          <a
            key={view}
            href={formatRoute({ ...route, view })}
            aria-current={view === route.view ? 'page' : undefined}
            data-testid={`page-${view}`}
          >
            {title}
          </a>
        ))}
      </nav>
      {summary && <RunProgress run={summary} />}
    </>
  );
}

function ThemeToggle() {
  // To hold transitions back, Mantine would write a style into the page, which the policy forbids.
  const { setColorScheme } = useMantineColorScheme({ keepTransitions: true });
  const dark = useDark();
  const label = dark ? 'Light theme' : 'Dark theme';
  return (
    <Tooltip label={label}>
      <ActionIcon
        variant="default"
        size="md"
        aria-label={label}
        data-testid="theme"
        onClick={() => setColorScheme(dark ? 'light' : 'dark')}
      >
        <svg width="15" height="15" viewBox="0 0 16 16" aria-hidden="true">
          <circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" strokeWidth="1.6" />
          <path d="M8 1.8a6.2 6.2 0 0 1 0 12.4z" fill="currentColor" />
        </svg>
      </ActionIcon>
    </Tooltip>
  );
}

function Logo() {
  return (
    <svg width="22" height="22" viewBox="0 0 16 16" aria-hidden="true" className={classes.logo}>
      <rect width="16" height="16" rx="3.5" />
      <path d="M3 11h2.5V8H8V5h2.5v3H13" />
    </svg>
  );
}
