import { createHash } from 'node:crypto';
import { VERSION } from '../../package.js';
import { tameJson } from '../../text.js';
import type { ServerStatus } from '../status.js';
import { type Html, html } from './html.js';
import { document, liveBody } from './layout.js';
import { overview, serverPath } from './overview.js';
import type { PageRequest, Remembered, ServerData, ServerPage, WebFacts } from './page.js';
import { restoreData, restorePage } from './restore-page.js';
import { SCRIPT } from './script.js';
import { serverPage } from './server-page.js';
import { ICON, STYLE } from './style.js';
import { unhealthy } from './troubles.js';
import { View } from './views.js';

export interface Answer {
  status: number;
  type: string;
  text: string;
  /** Of what does not change while the program runs. */
  tag?: string;
  headers?: Readonly<Record<string, string>>;
}

/** Pages of a server beside its own, and what is there for programs, by the last part of their path. */
const PAGES: Readonly<Record<string, ServerPage>> = { restore: restorePage };
const DATA: Readonly<Record<string, ServerData>> = { 'restore.json': restoreData };

/** Seconds after which the list of servers is loaded again where there is no script. */
const REFRESH = 15;

const HTML = 'text/html; charset=utf-8';
const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json; charset=utf-8';

export const plain = (status: number, text: string): Answer => ({ status, type: TEXT, text });

/** What stands on the page's behalf of everybody, who needs no token for it. */
const FILES: Readonly<Record<string, Answer>> = Object.fromEntries(
  (
    [
      ['/style.css', 'text/css; charset=utf-8', STYLE],
      ['/script.js', 'text/javascript; charset=utf-8', SCRIPT],
      ['/icon.svg', 'image/svg+xml', ICON],
    ] as const
  ).map(([path, type, text]) => {
    const tag = `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"`;
    return [path, { status: 200, type, text, tag }];
  }),
);

export const fileAt = (path: string): Answer | undefined =>
  Object.hasOwn(FILES, path) ? FILES[path] : undefined;

/** A page that asks for the token. @param next the path to go on to */
export function loginPage(next: string, wrong: string | undefined, now: number): Answer {
  const body = html`<section class="panel login"><h1>Token</h1>
${wrong !== undefined && html`<p class="notice bad" role="alert">${wrong}</p>`}
<form class="row" action="/login" method="post"><input type="hidden" name="next" value="${next}">
<label for="token">Token of this page</label><input id="token" name="token" type="password" autocomplete="current-password" required>
<button>Open</button></form></section>`;
  return page(401, { title: 'Token', body, now, path: [] });
}

function page(status: number, frame: Parameters<typeof document>[0]): Answer {
  return { status, type: HTML, text: document(frame) };
}

async function dataOf(make: ServerData, request: PageRequest): Promise<Answer> {
  const { status, value } = await make(request);
  return { status, type: JSON_TYPE, text: `${tameJson(JSON.stringify(value))}\n` };
}

/** A path without its query, in decoded parts. Undefined: none that anything stands at. */
function partsOf(path: string): string[] | undefined {
  try {
    return path.split('/').slice(1).map(decodeURIComponent);
  } catch {
    return undefined;
  }
}

/** Everything that is answered to whoever may see it: from memory, at once. */
export class Routes {
  readonly #facts: WebFacts;
  readonly #memory: Remembered;
  readonly #views = new Map<string, View>();

  constructor(facts: WebFacts, memory: Remembered) {
    this.#facts = facts;
    this.#memory = memory;
  }

  answer(path: string, now = Date.now()): Answer {
    const parts = partsOf(path);
    const [room, name, ...rest] = parts ?? [];
    if (path === '/status.json') return this.#json(now);
    if (room === 'health' && name !== undefined && rest.length === 0) return this.#health(name);
    const view = this.view(path);
    if (view) return this.#live(path, view, now);
    return this.#missing(now);
  }

  /** What another process has to find out; undefined: it is answered at once. */
  later(path: string, query: URLSearchParams, now = Date.now()): Promise<Answer> | undefined {
    const [room, name, last = '', ...rest] = partsOf(path) ?? [];
    const server = room === 'server' && rest.length === 0 ? this.#server(name) : undefined;
    if (!server) return undefined;
    const request: PageRequest = { facts: this.#facts, memory: this.#memory, server, query, now };
    if (Object.hasOwn(DATA, last)) return dataOf(DATA[last] as ServerData, request);
    return Object.hasOwn(PAGES, last)
      ? this.#page(PAGES[last] as ServerPage, last, request)
      : undefined;
  }

  async #page(make: ServerPage, last: string, request: PageRequest): Promise<Answer> {
    const { status = 200, title, body } = await make(request);
    const { name } = request.server;
    const own = serverPath(name);
    const way = [[name, own] as const, [title, `${own}/${encodeURIComponent(last)}`] as const];
    return page(status, { title: `${title}: ${name}`, body, now: request.now, path: way });
  }

  /** A page that is kept up to date. */
  view(path: string): View | undefined {
    const [room, name, ...rest] = partsOf(path) ?? [];
    const isAll = path === '/';
    if (!isAll && (room !== 'server' || rest.length > 0 || !this.#server(name))) {
      this.#views.delete(path);
      return undefined;
    }
    const key = isAll ? '/' : serverPath(name as string);
    const known = this.#views.get(key);
    if (known) return known;
    const view = new View(() => {
      if (isAll) return overview(this.#facts, Date.now());
      const server = this.#server(name);
      const [facts, memory] = [this.#facts, this.#memory];
      return server && serverPage({ facts, memory, server, now: Date.now() });
    });
    this.#views.set(key, view);
    return view;
  }

  #live(path: string, view: View, now: number): Answer {
    const shown = view.refresh();
    if (!shown) return this.#missing(now);
    const { title } = shown;
    const isAll = path === '/';
    return page(200, {
      ...{ title, body: liveBody(shown), now, live: view.version },
      path: isAll ? [] : [[title, serverPath(title)]],
      ...(isAll ? { refresh: REFRESH } : {}),
    });
  }

  #missing(now: number): Answer {
    const body: Html = html`<h1>Not found</h1><p>There is no such page, or no such server. <a href="/">All servers</a></p>`;
    return page(404, { title: 'Not found', body, now, path: [] });
  }

  #server(name: string | undefined): ServerStatus | undefined {
    return this.#facts.servers().find((server) => server.name === name);
  }

  #json(now: number): Answer {
    const servers = this.#facts.servers();
    const status = { version: VERSION, now: new Date(now).toISOString(), servers };
    return { status: 200, type: JSON_TYPE, text: `${tameJson(JSON.stringify(status))}\n` };
  }

  #health(name: string): Answer {
    const server = this.#server(name);
    if (!server) return plain(404, 'no such server\n');
    const why = unhealthy(server);
    return why === undefined ? plain(200, 'ok\n') : plain(503, `${tameJson(why)}\n`);
  }
}
