import createClient, { type Client } from 'openapi-fetch';
import { type Listen, sharedByTabs, tabsOfBrowser } from './events';
import { inflate } from './figures';
import type { paths } from './schema';
import type { ServerEvent } from './types';

/** Where the app's data comes from: a server, or the page itself. */
export interface DataSource {
  client: Client<paths>;
  /** Whether runs can be changed, and change by themselves. */
  live: boolean;
  /** Listen to what changes; returns how to stop. `connected` says whether the server can be reached. */
  subscribe: Listen;
}

const EVENT_KINDS = ['runs', 'run', 'removed'] as const;

/** The server that this page came from. */
export function liveSource(): DataSource {
  const tabs = tabsOfBrowser();
  return {
    client: createClient<paths>({ baseUrl: location.origin, credentials: 'same-origin' }),
    live: true,
    subscribe: tabs ? sharedByTabs(stream, tabs) : stream,
  };
}

const stream: Listen = (onEvent, onConnected) => {
  const events = new EventSource('/api/events');
  const receive = (event: MessageEvent<string>): void => onEvent(JSON.parse(event.data) as ServerEvent);
  for (const kind of EVENT_KINDS) events.addEventListener(kind, receive);
  events.onmessage = receive;
  events.onopen = () => onConnected(true);
  events.onerror = () => onConnected(false);
  return () => events.close();
};

const NOWHERE = 'http://offline.invalid';
const PART = /^(.*\/(?:nodes|ops)\/)(\d+)$/;

/**
 * Answers that the page holds itself, by the path of the API that would give them.
 *
 * A short answer is there as it is, a long one as base64 of its deflated JSON; "…/nodes/*" holds those of all nodes, and
 * "…/ops/*" those of a profile's ops.
 */
export function offlineSource(held: Readonly<Record<string, unknown>>): DataSource {
  const answers = new Map(Object.entries(held).map(([path, answer]) => [decodeURIComponent(path), answer]));
  const opened = new Map<string, Promise<unknown>>();
  const open = (path: string): Promise<unknown> => {
    let answer = opened.get(path);
    if (!answer) opened.set(path, (answer = unpacked(answers.get(path))));
    return answer;
  };
  const find = async (path: string): Promise<unknown> => {
    const [, parts, index] = PART.exec(path) ?? [];
    return parts ? ((await open(`${parts}*`)) as unknown[] | undefined)?.[Number(index)] : open(path);
  };
  const answer = async (request: Request): Promise<Response> => {
    const path = decodeURIComponent(new URL(request.url).pathname);
    const found = request.method === 'GET' ? await find(path) : undefined;
    if (found !== undefined) return Response.json(found);
    return Response.json({ message: `This page does not hold ${path}` }, { status: 404 });
  };
  return {
    client: createClient<paths>({ baseUrl: NOWHERE, fetch: answer }),
    live: false,
    subscribe: () => () => undefined,
  };
}

async function unpacked(answer: unknown): Promise<unknown> {
  return typeof answer === 'string' ? JSON.parse(new TextDecoder().decode(await inflate(answer))) : answer;
}

export const DATA_ELEMENT = 'quantscope-data';

/** The page's own data if it holds any, else its server. */
export function sourceOf(page: Document): DataSource {
  const held = page.getElementById(DATA_ELEMENT)?.textContent?.trim();
  return held ? offlineSource(JSON.parse(held) as Record<string, unknown>) : liveSource();
}
