import type { RunSummary, ServerEvent } from './types';

/** Opens a stream of events and says whether the server can be reached; returns how to close it. */
export type Listen = (onEvent: (event: ServerEvent) => void, onConnected: (connected: boolean) => void) => () => void;

/** The list of runs after an event. */
export function afterEvent(runs: readonly RunSummary[], event: ServerEvent): RunSummary[] {
  if (event.kind === 'runs') return event.runs;
  if (event.kind === 'removed') return runs.filter((run) => run.name !== event.name);
  const known = runs.some((run) => run.name === event.run.name);
  return known ? runs.map((run) => (run.name === event.run.name ? event.run : run)) : [event.run, ...runs];
}

const NAME = 'quantscope-events';

/** What tabs tell each other: one that opens asks what is known. */
type Message = { ask: true } | { event: ServerEvent } | { connected: boolean };

/** What tabs share a stream with: the browser's, or stand-ins. */
export interface Tabs {
  locks: { request(name: string, options: { signal: AbortSignal }, held: () => Promise<void>): Promise<unknown> };
  channel(name: string): Pick<BroadcastChannel, 'postMessage' | 'close' | 'onmessage'>;
}

/** The tabs of this browser; null where it cannot tell them apart, as on pages of other machines without TLS. */
export const tabsOfBrowser = (): Tabs | null =>
  'locks' in navigator && 'BroadcastChannel' in globalThis
    ? { locks: navigator.locks, channel: (name) => new BroadcastChannel(name) }
    : null;

/**
 * One stream for all tabs: browsers open six connections to a server at most, and each stream takes one.
 *
 * The tab that holds the lock listens and tells the others. When it closes the next one gets the lock, opens a stream,
 * which begins with all runs, and so nothing is missed.
 */
export function sharedByTabs(listen: Listen, { locks, channel: open }: Tabs): Listen {
  return (onEvent, onConnected) => {
    const channel = open(NAME);
    const tell = (message: Message): void => channel.postMessage(message);
    const stop = new AbortController();
    let known: { runs: RunSummary[]; connected: boolean } | null = null;
    channel.onmessage = ({ data }: MessageEvent<Message>) => {
      if ('event' in data) onEvent(data.event);
      else if ('connected' in data) onConnected(data.connected);
      else if (known) {
        tell({ event: { kind: 'runs', runs: known.runs } });
        tell({ connected: known.connected });
      }
    };
    const lead = (): Promise<void> =>
      new Promise((release) => {
        let [runs, connected]: [RunSummary[], boolean] = [[], true];
        const close = listen(
          (event) => {
            runs = afterEvent(runs, event);
            known = { runs, connected };
            onEvent(event);
            tell({ event });
          },
          (now) => {
            connected = now;
            if (known) known = { runs, connected };
            onConnected(now);
            tell({ connected });
          },
        );
        stop.signal.addEventListener('abort', () => {
          known = null;
          close();
          release();
        });
      });
    locks
      .request(NAME, { signal: stop.signal }, () => (stop.signal.aborted ? Promise.resolve() : lead()))
      .catch(() => undefined); // Only the end of waiting is refused, which is what was asked for.
    tell({ ask: true });
    return () => {
      stop.abort();
      channel.close();
    };
  };
}
