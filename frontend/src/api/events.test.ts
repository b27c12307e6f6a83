import { describe, expect, test } from 'vitest';
import { afterEvent, type Listen, sharedByTabs, type Tabs } from './events';
import type { RunSummary, ServerEvent } from './types';

const run = (name: string, rows = 0): RunSummary => ({ name, rows }) as RunSummary;
const runsEvent = (...runs: RunSummary[]): ServerEvent => ({ kind: 'runs', runs });
const runEvent = (changed: RunSummary): ServerEvent => ({ kind: 'run', run: changed });

test('the list of runs follows events', () => {
  const runs = [run('a'), run('b')];
  expect(afterEvent(runs, runEvent(run('b', 5))).map(({ rows }) => rows)).toEqual([0, 5]);
  expect(afterEvent(runs, runEvent(run('c'))).map(({ name }) => name)).toEqual(['c', 'a', 'b']);
  expect(afterEvent(runs, { kind: 'removed', name: 'a' })).toEqual([run('b')]);
  expect(afterEvent(runs, runsEvent())).toEqual([]);
});

/** Tabs of one browser: a lock that one holds at a time, in the order of asking, and a channel that skips the sender. */
function browser(): Tabs {
  const waiting: { held: () => Promise<void>; signal: AbortSignal }[] = [];
  let taken = false;
  const next = async (): Promise<void> => {
    const first = waiting.shift();
    if (!first) return void (taken = false);
    taken = true;
    if (!first.signal.aborted) await first.held();
    await next();
  };
  const channels = new Set<Pick<BroadcastChannel, 'postMessage' | 'close' | 'onmessage'>>();
  return {
    locks: {
      request: async (_, { signal }, held) => {
        waiting.push({ held, signal });
        if (!taken) await next();
      },
    },
    channel: () => {
      const own: Pick<BroadcastChannel, 'postMessage' | 'close' | 'onmessage'> = {
        onmessage: null,
        postMessage: (data) => {
          for (const other of channels)
            if (other !== own) other.onmessage?.call(null as never, new MessageEvent('message', { data }));
        },
        close: () => void channels.delete(own),
      };
      channels.add(own);
      return own;
    },
  };
}

/** A server that says all runs to each stream that is opened. */
function server() {
  const streams = new Set<{ tell(event: ServerEvent): void; connected(now: boolean): void }>();
  const state = { runs: [run('a')] };
  const listen: Listen = (onEvent, onConnected) => {
    const own = { tell: onEvent, connected: onConnected };
    streams.add(own);
    onConnected(true);
    onEvent(runsEvent(...state.runs));
    return () => void streams.delete(own);
  };
  return { streams, state, listen };
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

describe('the tabs of a browser', () => {
  const open = (listen: Listen, tabs: Tabs) => {
    const seen: ServerEvent[] = [];
    const connected: boolean[] = [];
    const close = sharedByTabs(listen, tabs)(
      (event) => seen.push(event),
      (now) => connected.push(now),
    );
    return { seen, connected, close };
  };

  test('have one stream for all of them', async () => {
    const { streams, listen } = server();
    const tabs = browser();
    const opened = Array.from({ length: 10 }, () => open(listen, tabs));
    expect(streams.size).toBe(1);
    for (const stream of streams) stream.tell(runEvent(run('b', 7)));
    for (const { seen } of opened) expect(seen.at(-1)).toEqual(runEvent(run('b', 7)));
    for (const stream of streams) stream.connected(false);
    for (const { connected } of opened) expect(connected.at(-1)).toBe(false);
    for (const { close } of opened) close();
    await settled();
    expect(streams.size).toBe(0);
  });

  test('that open later are told what is known by then', () => {
    const { streams, listen } = server();
    const tabs = browser();
    open(listen, tabs);
    for (const stream of streams) stream.tell(runEvent(run('b')));
    const late = open(listen, tabs);
    expect(late.seen).toEqual([runsEvent(run('b'), run('a'))]);
    expect(late.connected).toEqual([true]);
  });

  test('go on when the one that listens is closed', async () => {
    const { streams, state, listen } = server();
    const tabs = browser();
    const [first, second, third] = [open(listen, tabs), open(listen, tabs), open(listen, tabs)];
    state.runs = [run('a'), run('new')];
    second.close();
    first.close();
    await settled();
    expect(streams.size).toBe(1);
    expect(third.seen.at(-1)).toEqual(runsEvent(run('a'), run('new')));
    expect(second.seen.at(-1)).toEqual(runsEvent(run('a')));
  });
});
