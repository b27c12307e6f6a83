import { useCallback, useSyncExternalStore } from 'react';
import type { Role, Side } from '../api/types';

/** The pages of one run; to add one, name it here and give it a page in `RunPages`. */
export const RUN_VIEWS = ['overview', 'graph', 'weights', 'suggestions', 'trials', 'sensitivity', 'profile'] as const;
export type RunView = (typeof RUN_VIEWS)[number];

/** What is chosen on a run's pages, and goes along from one to the other. */
export interface RunState {
  op?: string;
  group?: number;
  /** The tensor of the op that is looked at, by its key on the server. */
  row?: number;
  side?: Side;
  role?: Role;
  metric?: string;
}

export type Route =
  | { page: 'runs' }
  | { page: 'compare'; a: string; b: string }
  | { page: 'run'; run: string; view: RunView; state: RunState };

const oneOf = <T extends string>(values: readonly T[], value: string | null): T | undefined =>
  values.find((known) => known === value);

const wholeNumber = (value: string | null): number | undefined =>
  value !== null && /^\d{1,9}$/.test(value) ? Number(value) : undefined;

/** The route that the part of an address after # names; the list of runs if it names none. */
export function parseRoute(hash: string): Route {
  const [path, query = ''] = hash.replace(/^#?\/?/, '').split('?', 2);
  const parts = path.split('/').map(decoded);
  const search = new URLSearchParams(query);
  const [a, b] = [search.get('a'), search.get('b')];
  if (parts[0] === 'compare' && a && b) return { page: 'compare', a, b };
  if (parts[0] !== 'runs' || !parts[1]) return { page: 'runs' };
  const state = {
    op: search.get('op') ?? undefined,
    group: wholeNumber(search.get('group')),
    row: wholeNumber(search.get('row')),
    side: oneOf(['reference', 'quantized'] as const, search.get('side')),
    role: oneOf(['activation', 'weight', 'bias'] as const, search.get('role')),
    metric: search.get('metric') ?? undefined,
  };
  return { page: 'run', run: parts[1], view: oneOf(RUN_VIEWS, parts[2]) ?? 'overview', state: withoutGaps(state) };
}

export function formatRoute(route: Route): string {
  if (route.page === 'runs') return '#/';
  if (route.page === 'compare') return `#/compare?${new URLSearchParams({ a: route.a, b: route.b })}`;
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(withoutGaps(route.state))) query.set(key, String(value));
  const path = `#/runs/${encodeURIComponent(route.run)}/${route.view}`;
  return query.size ? `${path}?${query}` : path;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The object without keys that have no value. */
export function withoutGaps<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

const subscribe = (onChange: () => void): (() => void) => {
  window.addEventListener('hashchange', onChange);
  return () => window.removeEventListener('hashchange', onChange);
};

/** Go to a route: as a new entry of the browser's history, or in place of the current one. */
export function go(route: Route, how: 'push' | 'replace' = 'push'): void {
  const hash = formatRoute(route);
  if (hash === location.hash) return;
  if (how === 'push') location.hash = hash;
  else location.replace(hash);
}

/** The route of the page's address, and a way to another one. */
export function useRoute(): Route {
  const hash = useSyncExternalStore(subscribe, () => location.hash);
  return parseRoute(hash);
}

export type ChangeState = (
  change: { [K in keyof RunState]?: RunState[K] | undefined },
  how?: 'push' | 'replace',
) => void;

/** Change what is chosen on the run's pages. */
export function useChangeState(): ChangeState {
  return useCallback((change, how = 'push') => {
    const route = parseRoute(location.hash);
    if (route.page === 'run') go({ ...route, state: withoutGaps({ ...route.state, ...change }) }, how);
  }, []);
}
