import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { View } from './views.js';

/** Milliseconds between looks at what changed: what is rare is told soon. */
const EACH = 500;
/** Milliseconds between changes that one is told of, a little less: what changes all the time is not. */
const SPACE = 950;
/** Looks between signs of life. */
const BEAT = 10;
/** Who watches at a time; more are told to come again. */
export const MOST_WATCHERS = 100;
/** Bytes that one may leave unread before it is dropped: it gets all at once when it comes again. */
const MOST_WAITING = 1 << 20;

interface Watcher {
  response: ServerResponse;
  /** An answer that waits for others on its connection is told of none of its ends. */
  socket: Socket;
  view: View;
  version: string;
  /** When it was told of a change last, of `performance.now()`. */
  toldAt: number;
}

/** Tells pages that are open what changed on them, about each second at most. */
export class Stream {
  readonly #watchers = new Set<Watcher>();
  #timer: NodeJS.Timeout | undefined;
  #count = 0;

  get size(): number {
    return this.#watchers.size;
  }

  /** @param version what the page shows */
  add(response: ServerResponse, socket: Socket, view: View, version: string): void {
    const watcher = { response, socket, view, version, toldAt: 0 };
    this.#watchers.add(watcher);
    response.on('close', () => this.#remove(watcher));
    response.on('error', () => this.#remove(watcher));
    // Who is cut off comes again after so many milliseconds.
    response.write('retry: 2000\n\n');
    view.refresh();
    this.#tell(watcher, true);
    this.#timer ??= setInterval(() => this.#look(), EACH);
  }

  close(): void {
    for (const { socket } of this.#watchers) socket.destroy();
    this.#watchers.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #remove(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    if (this.#watchers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    this.#count += 1;
    for (const watcher of this.#watchers) if (watcher.socket.destroyed) this.#remove(watcher);
    for (const view of new Set([...this.#watchers].map(({ view }) => view))) {
      try {
        view.refresh();
      } catch {
        // Whatever is wrong with a page, receivers are not to end of it.
        for (const watcher of this.#watchers) {
          if (watcher.view === view) watcher.socket.destroy();
        }
      }
    }
    for (const watcher of this.#watchers) this.#tell(watcher, this.#count % BEAT === 0);
  }

  #tell(watcher: Watcher, beat: boolean): void {
    const { response, socket, view } = watcher;
    if (response.writableLength > MOST_WAITING) {
      socket.destroy();
      return;
    }
    const now = performance.now();
    const changes = now - watcher.toldAt < SPACE ? undefined : view.since(watcher.version);
    if (changes) {
      watcher.toldAt = now;
      watcher.version = changes.version;
    }
    if (changes?.parts === undefined && changes) {
      response.write('event: reload\ndata: {}\n\n');
    } else if (changes) {
      const data = JSON.stringify({ now: Date.now(), parts: changes.parts });
      response.write(`id: ${changes.version}\ndata: ${data}\n\n`);
    } else if (beat) {
      response.write(`event: beat\ndata: {"now":${Date.now()}}\n\n`);
    }
  }
}
