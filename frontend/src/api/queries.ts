import { useMutation, useQuery, useQueryClient, type QueryClient } from '@tanstack/react-query';
import { createContext, useContext, useEffect, useRef, useState } from 'react';
import { channelData } from '../charts/channels';
import { GraphModel } from '../graph/model';
import { ProfileTable } from '../profile/profile-table';
import { afterEvent } from './events';
import { unpackCounts } from './figures';
import { ApiProblem, dataOf } from './problem';
import { RowTable } from './rows';
import type { DataSource } from './source';
import type { RunSummary, Sensitivities, Side } from './types';

const Source = createContext<DataSource | null>(null);
export const SourceProvider = Source.Provider;

export function useSource(): DataSource {
  const source = useContext(Source);
  if (!source) throw new Error('there is no data source around this component');
  return source;
}

const RUNS = ['runs'];

/**
 * Options of a query whose answer lasts until the run has another revision; the older one is shown meanwhile.
 *
 * Nothing is asked for before the revision is known: it would be asked for again when it is.
 */
function lasting(key: readonly (string | number)[], revision: string) {
  return {
    queryKey: [...key, revision],
    enabled: revision !== '',
    placeholderData: <T>(previous: T | undefined, query?: { queryKey: readonly unknown[] }): T | undefined =>
      query && key.every((part, i) => query.queryKey[i] === part) ? previous : undefined,
    staleTime: Infinity,
    retry: isWorthRetrying,
  };
}

function isWorthRetrying(failures: number, error: Error): boolean {
  return failures < 2 && !(error instanceof ApiProblem && error.status >= 400 && error.status < 500);
}

export function useAbout() {
  const { client } = useSource();
  return useQuery({ queryKey: ['about'], queryFn: () => dataOf(client.GET('/api/about')), staleTime: Infinity });
}

export function useRuns() {
  const { client } = useSource();
  return useQuery({
    queryKey: RUNS,
    queryFn: async () => (await dataOf(client.GET('/api/runs'))).runs,
    staleTime: Infinity,
    retry: isWorthRetrying,
  });
}

/** A run of the list. */
export const useSummary = (name: string): RunSummary | undefined => useRuns().data?.find((run) => run.name === name);

/** What an answer about a run lasts for; "" where nothing can be asked of it: it is not known, or damaged. */
function useRevision(name: string): string {
  const run = useSummary(name);
  return run && run.status !== 'damaged' ? run.revision : '';
}

export function useRun(name: string) {
  const { client } = useSource();
  return useQuery({
    ...lasting(['run', name], useRevision(name)),
    queryFn: () => dataOf(client.GET('/api/runs/{name}', { params: { path: { name } } })),
  });
}

/** A model's graph. It never changes once it is there; as long as it is not, it is asked for with each revision. */
export function useGraph(name: string, side: Side) {
  const { client } = useSource();
  const revision = useRevision(name);
  const graph = useQuery({
    queryKey: ['graph', name, side],
    queryFn: async () => {
      const columns = await dataOf(client.GET('/api/runs/{name}/graphs/{side}', { params: { path: { name, side } } }));
      return new GraphModel(columns);
    },
    enabled: revision !== '',
    staleTime: Infinity,
    retry: isWorthRetrying,
  });
  const { isError, refetch } = graph;
  const asked = useRef(revision);
  useEffect(() => {
    if (isError && asked.current !== revision) void refetch();
    asked.current = revision;
  }, [isError, refetch, revision]);
  return graph;
}

export function useNode(name: string, side: Side, index: number) {
  const { client } = useSource();
  return useQuery({
    ...lasting(['node', name, side, index], useRevision(name)),
    queryFn: () =>
      dataOf(client.GET('/api/runs/{name}/graphs/{side}/nodes/{index}', { params: { path: { name, side, index } } })),
  });
}

export function useRows(name: string) {
  const { client } = useSource();
  return useQuery({
    ...lasting(['rows', name], useRevision(name)),
    queryFn: async () =>
      new RowTable(await dataOf(client.GET('/api/runs/{name}/rows', { params: { path: { name } } }))),
  });
}

/** A row in full, its counts unpacked. */
export function useRow(name: string, index: number) {
  const { client } = useSource();
  return useQuery({
    ...lasting(['row', name, index], useRevision(name)),
    queryFn: async () => {
      const path = { name, index };
      const details = await dataOf(client.GET('/api/runs/{name}/rows/{index}', { params: { path } }));
      const { channels } = details;
      const counts = [channels?.reference_counts, channels?.quantized_counts];
      const [reference, quantized] = await Promise.all(counts.map((side) => (side ? unpackCounts(side) : null)));
      return { ...details, channels: channels && reference ? channelData(channels, reference, quantized) : null };
    },
  });
}

export type FullRow = NonNullable<ReturnType<typeof useRow>['data']>;

export function useSuggestions(name: string) {
  const { client } = useSource();
  return useQuery({
    ...lasting(['suggestions', name], useRevision(name)),
    queryFn: () => dataOf(client.GET('/api/runs/{name}/suggestions', { params: { path: { name } } })),
  });
}

export function useSensitivity(name: string, wanted = true) {
  const { client } = useSource();
  const options = lasting(['sensitivity', name], useRevision(name));
  return useQuery({
    ...options,
    enabled: wanted && options.enabled,
    queryFn: () => dataOf(client.GET('/api/runs/{name}/sensitivity', { params: { path: { name } } })),
  });
}

/** The measured effects of ops of a run that compared no tensors; null where there are none. */
export function useEffectsOf({ name, kind }: RunSummary): Sensitivities | null {
  const alone = useSensitivity(name, kind === 'sensitivity').data;
  const search = useTrials(name, kind === 'tune').data;
  const found = alone ?? search?.sensitivities ?? null;
  return found?.rows.length ? found : null;
}

/** Where the time goes, for a run that was profiled. */
export function useProfile({ name, has_profile: wanted }: RunSummary) {
  const { client } = useSource();
  const options = lasting(['profile', name], useRevision(name));
  return useQuery({
    ...options,
    enabled: wanted && options.enabled,
    queryFn: async () =>
      new ProfileTable(await dataOf(client.GET('/api/runs/{name}/profile', { params: { path: { name } } }))),
  });
}

/** The kernels of an op of the profile, by its place in the table. */
export function useKernels(name: string, index: number) {
  const { client } = useSource();
  return useQuery({
    ...lasting(['kernels', name, index], useRevision(name)),
    queryFn: () => dataOf(client.GET('/api/runs/{name}/profile/ops/{index}', { params: { path: { name, index } } })),
  });
}

export function useTrials(name: string, wanted = true) {
  const { client } = useSource();
  const options = lasting(['trials', name], useRevision(name));
  return useQuery({
    ...options,
    enabled: wanted && options.enabled,
    queryFn: () => dataOf(client.GET('/api/runs/{name}/trials', { params: { path: { name } } })),
  });
}

export function useComparison(a: string, b: string) {
  const { client } = useSource();
  return useQuery({
    ...lasting(['compare', a, b], [useRevision(a), useRevision(b)].filter(Boolean).join(' ')),
    queryFn: () => dataOf(client.GET('/api/compare', { params: { query: { a, b } } })),
  });
}

export function useChangeRun() {
  const { client } = useSource();
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ run, ...body }: { run: string; name?: string; tags?: string[] }) =>
      dataOf(client.PATCH('/api/runs/{name}', { params: { path: { name: run } }, body })),
    onSuccess: (summary, { run }) => {
      setRuns(queries, (runs) => runs.map((other) => (other.name === run ? summary : other)));
    },
  });
}

export function useDeleteRuns() {
  const { client } = useSource();
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (names: readonly string[]) => {
      for (const name of names) {
        await dataOf(client.DELETE('/api/runs/{name}', { params: { path: { name } } }));
        setRuns(queries, (runs) => runs.filter((run) => run.name !== name));
      }
    },
  });
}

function setRuns(queries: QueryClient, change: (runs: RunSummary[]) => RunSummary[]): void {
  queries.setQueryData<RunSummary[]>(RUNS, (runs) => change(runs ?? []));
}

/** Keep the list of runs, and by their revisions all else, as the server has it; false while it cannot be reached. */
export function useLiveRuns(): boolean {
  const source = useSource();
  const queries = useQueryClient();
  const [connected, setConnected] = useState(true);
  useEffect(
    () => source.subscribe((event) => setRuns(queries, (runs) => afterEvent(runs, event)), setConnected),
    [source, queries],
  );
  return connected;
}
