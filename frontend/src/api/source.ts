import createClient, { type Client } from 'openapi-fetch';
import type { paths } from './schema';
import type { ServerEvent } from './types';

/** Where the app's data comes from: a server, or the page itself. */
export interface DataSource {
  client: Client<paths>;
  /** Whether runs can be changed, and change by themselves. */
  live: boolean;
  /** Listen to what changes; returns how to stop. `connected` says whether the server can be reached. */
  subscribe(onEvent: (event: ServerEvent) => void, onConnected: (connected: boolean) => void): () => void;
}

const EVENT_KINDS = ['runs', 'run', 'removed'] as const;

/** The server that this page came from. */
export function liveSource(): DataSource {
  return {
    client: createClient<paths>({ baseUrl: location.origin, credentials: 'same-origin' }),
    live: true,
    subscribe: (onEvent, onConnected) => {
      const stream = new EventSource('/api/events');
      const receive = (event: MessageEvent<string>): void => onEvent(JSON.parse(event.data) as ServerEvent);
      for (const kind of EVENT_KINDS) stream.addEventListener(kind, receive);
      stream.onmessage = receive;
      stream.onopen = () => onConnected(true);
      stream.onerror = () => onConnected(false);
      return () => stream.close();
    },
  };
}

const NOWHERE = 'http://offline.invalid';

/** Answers that the page holds itself, by the path of the API that would give them. */
export function offlineSource(answers: Readonly<Record<string, unknown>>): DataSource {
  const answer = async (request: Request): Promise<Response> => {
    const { pathname, search } = new URL(request.url);
    const found = answers[decodeURIComponent(pathname) + search] ?? answers[pathname + search];
    if (request.method === 'GET' && found !== undefined) return Response.json(found);
    return Response.json({ message: `This page does not hold ${decodeURIComponent(pathname)}` }, { status: 404 });
  };
  return {
    client: createClient<paths>({ baseUrl: NOWHERE, fetch: answer }),
    live: false,
    subscribe: () => () => undefined,
  };
}

export const DATA_ELEMENT = 'quantscope-data';

/** The page's own data if it holds any, else its server. */
export function sourceOf(page: Document): DataSource {
  const held = page.getElementById(DATA_ELEMENT)?.textContent?.trim();
  return held ? offlineSource(JSON.parse(held) as Record<string, unknown>) : liveSource();
}
