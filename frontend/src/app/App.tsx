import { useEffect } from 'react';
import { useLiveRuns } from '../api/queries';
import { ComparePage } from '../pages/ComparePage';
import { RunPage } from '../pages/RunPage';
import { RunsPage } from '../pages/RunsPage';
import classes from './App.module.css';
import { Header } from './Header';
import { type Route, useRoute } from './route';

const titleOf = (route: Route): string => {
  if (route.page === 'runs') return 'Runs · quantscope';
  if (route.page === 'compare') return `${route.a} and ${route.b} · quantscope`;
  return `${route.state.op ?? route.view} · ${route.run} · quantscope`;
};

export function App() {
  const route = useRoute();
  const connected = useLiveRuns();
  const title = titleOf(route);
  useEffect(() => {
    document.title = title;
  }, [title]);
  return (
    <div className={classes.app}>
      <a className={classes.skip} href="#main" onClick={(event) => skipToMain(event.nativeEvent)}>
        Skip to the content
      </a>
      <Header route={route} connected={connected} />
      <main id="main" tabIndex={-1} className={classes.main}>
        {route.page !== 'runs' && <h1 className="visually-hidden">{title}</h1>}
        {route.page === 'runs' && <RunsPage />}
        {route.page === 'compare' && <ComparePage a={route.a} b={route.b} />}
        {route.page === 'run' && <RunPage key={route.run} run={route.run} view={route.view} state={route.state} />}
      </main>
    </div>
  );
}

/** Addresses after # are routes here: the link must not become one. */
function skipToMain(event: MouseEvent): void {
  event.preventDefault();
  document.getElementById('main')?.focus();
}
