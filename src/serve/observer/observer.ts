import { isDeepStrictEqual } from 'node:util';
import type { WorkConfig } from '../config/config.js';
import { endOf, forkProgram, sendTo } from '../fork.js';
import { type Watched, watchOver } from '../life.js';
import type { Part, Tell } from '../part.js';
import { type ArchiveStatus, reportOf, type WorkStatus } from '../status.js';
import type { FromObserver, Observed, ToObserver } from './messages.js';

/** Milliseconds before another is begun, doubling up to the longest. */
const FIRST = 1000;
const LONGEST = 60_000;
/** Milliseconds that one must have lived for its end to be a new trouble. */
const WELL = 60_000;
/** Milliseconds without a sign of life after which it is replaced. */
const SILENT = 10_000;
/** Milliseconds for a killed one to be gone: longer only a disk keeps it. */
const GONE = 2000;
/** Threads for calls to disks: each server's that hangs holds a few. */
const POOL = '128';

/** A running process of the observer. */
export interface ObserverChild {
  readonly pid: number | undefined;
  /** How it ended. */
  readonly ended: Promise<string>;
  send(message: ToObserver): void;
  kill(): void;
}

export type LaunchObserver = (hear: (message: FromObserver) => void) => ObserverChild;

export const launchObserver: LaunchObserver = (hear) => {
  const child = forkProgram('serve/observer/worker.js', { env: { UV_THREADPOOL_SIZE: POOL } });
  child.on('message', hear);
  return {
    pid: child.pid,
    ended: endOf(child),
    send: (message) => sendTo(child, message),
    kill: () => void child.kill('SIGKILL'),
  };
};

/**
 * What the archives of all servers hold, looked at by a process of its own: this one touches no disk.
 * One that dies or hangs is replaced; what it told last stays until then.
 */
export class Observer implements Part, Watched {
  readonly #tell: Tell;
  readonly #launch: LaunchObserver;
  #observed: readonly Observed[] = [];
  readonly #archives = new Map<string, ArchiveStatus>();
  #child: ObserverChild | undefined;
  #begunAt = 0;
  #heardAt = 0;
  #failures = 0;
  #ended = false;
  #retry: NodeJS.Timeout | undefined;
  #watch: NodeJS.Timeout | undefined;

  constructor(tell: Tell, launch: LaunchObserver = launchObserver) {
    this.#tell = tell;
    this.#launch = launch;
  }

  /** Of its process, while there is one. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async apply(work: readonly WorkConfig[]): Promise<void> {
    const before = new Map(this.#observed.map((one) => [one.server.name, one]));
    this.#observed = work.map(observedOf);
    for (const [name, one] of before) {
      const same = this.#observed.find(({ server }) => server.name === name);
      // What it held elsewhere is not what it holds here.
      if (same?.server.directory !== one.server.directory) this.#archives.delete(name);
    }
    if (isDeepStrictEqual([...before.values()], this.#observed)) return;
    this.#watch ??= watchOver(() => [this]);
    if (this.#child) this.#child.send({ kind: 'watch', servers: this.#observed });
    else if (!this.#retry) this.#begin();
  }

  status(server: string): WorkStatus {
    const archive = this.#archives.get(server);
    return archive ? { archive } : {};
  }

  async end(): Promise<void> {
    this.#ended = true;
    clearInterval(this.#watch);
    clearTimeout(this.#retry);
    const child = this.#child;
    child?.kill();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, GONE);
    });
    await Promise.race([child?.ended, late]);
    clearTimeout(timer);
  }

  #begin(): void {
    this.#retry = undefined;
    this.#begunAt = this.#heardAt = performance.now();
    let child: ObserverChild | undefined;
    try {
      child = this.#launch((message) => {
        if (child && child === this.#child) this.#hear(child, message);
      });
    } catch (e) {
      this.#after(reportOf(e).message);
      return;
    }
    this.#child = child;
    void child.ended.then((how) => {
      if (this.#child === child)
        this.#after(`the process that looks at archives ended with ${how}`);
    });
  }

  #hear(child: ObserverChild, message: FromObserver): void {
    this.#heardAt = performance.now();
    if (message.kind === 'ready') child.send({ kind: 'watch', servers: this.#observed });
    if (message.kind !== 'archives') return;
    for (const [name, archive] of Object.entries(message.archives)) {
      if (this.#observed.some(({ server }) => server.name === name)) {
        this.#archives.set(name, archive);
      }
    }
  }

  /** It is gone, or as good as that. */
  #after(why: string): void {
    this.#child = undefined;
    if (this.#ended) return;
    if (performance.now() - this.#begunAt > WELL) this.#failures = 0;
    const wait = Math.min(LONGEST, FIRST * 2 ** Math.min(this.#failures, 20));
    this.#failures += 1;
    const message = `${why}; another begins in ${wait / 1000} s`;
    this.#tell({ level: 'error', event: 'observer', message, code: 'WK_PROCESS' });
    for (const { server } of this.#observed) {
      const { name } = server;
      const archive = this.#archives.get(name) ?? UNREAD;
      const { readAt } = archive;
      const since = readAt === undefined ? '' : ` since ${readAt}`;
      const error = { code: 'WK_PROCESS', message: `the archive was not read${since}: ${why}` };
      this.#archives.set(name, { ...archive, error });
    }
    this.#retry = setTimeout(() => this.#begin(), wait);
  }

  /** Replaces a process that hangs. @param now of performance.now() */
  look(now: number): void {
    const child = this.#child;
    if (!child || now - this.#heardAt < SILENT) return;
    child.kill();
    // A disk may keep it for long: nobody waits for that.
    this.#after(`nothing was heard of the process that looks at archives for ${SILENT / 1000} s`);
  }

  /** This process itself did not run for a while: nobody could be heard. */
  forgive(): void {
    this.#heardAt = performance.now();
  }
}

/** Of which nothing was told yet. */
const UNREAD: ArchiveStatus = {
  ...{ segments: 0, bytes: 0, timelines: [], gaps: [], backups: [], places: [] },
  ...{ windows: [], besideWindows: [] },
};

function observedOf({ server, stores }: WorkConfig): Observed {
  return {
    server,
    stores: stores.map(({ name, place, accessKeyFile, secretKeyFile, identityFile }) => ({
      ...{ name, place },
      ...(accessKeyFile === undefined ? {} : { accessKeyFile }),
      ...(secretKeyFile === undefined ? {} : { secretKeyFile }),
      ...(identityFile === undefined ? {} : { identityFile }),
    })),
  };
}
