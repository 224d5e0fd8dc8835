import { isDeepStrictEqual } from 'node:util';
import { ConfigError, UsageError } from '../errors.js';
import { VERSION } from '../package.js';
import type { Listen, ServeConfig, WebConfig, WorkConfig } from './config/config.js';
import { faultLine } from './config/fault.js';
import type { ControlRequest, ControlResults } from './control/protocol.js';
import { type Control, ControlServer } from './control/server.js';
import { Jobs } from './jobs/jobs.js';
import type { MetricsListener } from './metrics/listener.js';
import { Notifier } from './notify/notifier.js';
import { Observer } from './observer/observer.js';
import type { Part } from './part.js';
import type { RestoreBuilder } from './restore/builder.js';
import { ServiceNotifier } from './service-notifier.js';
import { Shipping } from './shipping/shipping.js';
import { type LogEntry, reportOf, type ServerStatus } from './status.js';
import type { Launch } from './supervisor/child.js';
import { type Applied, Supervisor } from './supervisor/supervisor.js';
import { Memory } from './web/memory.js';
import type { Web, WebChange } from './web/web.js';

export interface ServeOptions {
  /** Path of the configuration. */
  file: string;
  env?: NodeJS.ProcessEnv;
  /** Takes each line of the log. */
  tell(entry: LogEntry): void;
  launch?: Launch;
}

/** `walkeep serve`: the receivers of all servers of a configuration, and how they are asked and told. */
export class Service {
  readonly #file: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #tell: ServeOptions['tell'];
  readonly #supervisor: Supervisor;
  readonly #notifier: ServiceNotifier;
  readonly #notices: Notifier;
  #metrics: { listen: Listen; listener: MetricsListener } | undefined;
  /** What is done beside receiving; each is told of all servers, and asked of one. */
  readonly #parts: readonly Part[];
  /** The status page, and what is remembered for it. */
  #web: Web | undefined;
  readonly #memory = new Memory();
  readonly #jobs: Jobs;
  /** Begun when somebody asks for one. */
  #restores: RestoreBuilder | undefined;
  #work: readonly WorkConfig[] = [];
  #configIsGood = true;
  #control: { socket: string; server: ControlServer } | undefined;
  /** Reloads and the end come one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #ending = false;

  constructor({ file, env = process.env, tell, launch }: ServeOptions) {
    this.#file = file;
    this.#env = env;
    this.#tell = (entry) => {
      this.#memory.note(entry);
      tell(entry);
    };
    this.#supervisor = new Supervisor(this.#tell, launch);
    const isPaused = (name: string): boolean =>
      this.#supervisor.status().some((one) => one.name === name && one.state === 'paused');
    this.#jobs = new Jobs({ tell: this.#tell, isPaused });
    this.#parts = [new Shipping(this.#tell), new Observer(this.#tell), this.#jobs];
    this.#notifier = new ServiceNotifier(env, (why) =>
      this.#tell({
        ...{ level: 'warning', event: 'notify', message: 'the service manager cannot be told' },
        hint: `${why}; with Type=exec it need not be.`,
      }),
    );
    const facts = { servers: () => this.#status(), configIsGood: () => this.#configIsGood };
    this.#notices = new Notifier(facts, this.#tell);
  }

  /** @throws ConfigError, or StorageError if the control socket cannot be had: then nothing runs */
  start(): Promise<void> {
    return this.#inTurn(async () => {
      const config = await this.#read();
      await this.#open(config);
      const { started } = await this.#supervisor.apply(config.servers);
      await this.#applyWork(config);
      this.#tell({ level: 'info', event: 'ready', message: `receives from ${started.join(', ')}` });
      this.#notifier.ready();
    });
  }

  /**
   * Reads the configuration again and makes it so. All of it is checked before anything changes.
   * @throws ConfigError, StorageError: then all goes on as it was; UsageError once all is ending
   */
  reload(): Promise<Applied> {
    return this.#inTurn(async () => {
      if (this.#ending) throw new UsageError('"walkeep serve" is ending');
      this.#notifier.reloading();
      try {
        const config = await this.#read();
        await this.#open(config);
        this.#configIsGood = true;
        const applied = await this.#supervisor.apply(config.servers);
        await this.#applyWork(config);
        this.#tell({ level: 'info', event: 'reload', message: changesOf(applied) });
        return applied;
      } catch (e) {
        this.#configIsGood = false;
        const { code, message } = reportOf(e);
        const text = `${message}; all goes on as before`;
        const faults =
          e instanceof ConfigError ? e.faults.map((f) => faultLine(this.#file, f)) : [];
        this.#tell({
          ...{ level: 'error', event: 'reload-failed', message: text, code },
          ...(faults.length > 0 ? { detail: faults.join('\n') } : {}),
        });
        throw e;
      } finally {
        if (!this.#ending) this.#notifier.ready();
      }
    });
  }

  /** Ends all receivers, each with all that it has on disk. */
  async stop(): Promise<void> {
    this.#ending = true;
    this.#notifier.stopping();
    await this.#inTurn(async () => {
      this.#notices.end();
      await Promise.all([this.#supervisor, ...this.#parts].map((part) => part.end()));
      await this.#metrics?.listener.close();
      await this.#restores?.end();
      await this.#web?.close();
      await this.#control?.server.close();
    });
    this.#tell({ level: 'info', event: 'stop', message: 'all receivers have ended' });
  }

  async #read(): Promise<ServeConfig> {
    const { readConfig } = await import('./config/read.js');
    return readConfig(this.#file, this.#env);
  }

  async #applyWork({ work, notify }: ServeConfig): Promise<void> {
    this.#work = work;
    for (const part of this.#parts) await part.apply(work);
    this.#notices.apply(notify);
  }

  /** Of all servers, or of one. @throws UsageError if there is none of that name */
  #status(name?: string): ServerStatus[] {
    return this.#supervisor.status(name).map((received) => {
      const work = this.#workOf(received.name);
      const parts = this.#parts.map((part) => part.status(received.name));
      const rpoLimitSeconds = (work?.rpo ?? 0) / 1000;
      const troubles = this.#notices.troubles(received.name);
      const maxAge = work?.backup?.maxAge;
      const limits = {
        rpoLimitSeconds,
        ...(maxAge === undefined ? {} : { backupLimitSeconds: maxAge / 1000 }),
      };
      return Object.assign({ ...received, ...limits, troubles }, ...parts);
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** Opens what is new first, all of it: where something fails, all that was there stays. */
  async #open({ control, metrics, web }: ServeConfig): Promise<void> {
    const before = { control: this.#control, metrics: this.#metrics };
    const sameMetrics = isDeepStrictEqual(before.metrics?.listen, metrics);
    const sameControl = before.control?.socket === control?.socket;
    const nextMetrics = sameMetrics ? before.metrics : metrics && (await this.#listen(metrics));
    let nextWeb: WebChange | undefined;
    try {
      nextWeb = await this.#changeWeb(web);
      if (!sameControl) {
        this.#control = control && {
          socket: control.socket,
          server: await ControlServer.open(control.socket, this.#asked),
        };
      }
    } catch (e) {
      await nextWeb?.undo();
      if (!sameMetrics) await nextMetrics?.listener.close();
      throw e;
    }
    this.#metrics = nextMetrics;
    if (!sameMetrics) await before.metrics?.listener.close();
    // Whoever asks for this is to get an answer there.
    if (!sameControl) before.control?.server.retire();
    await nextWeb?.commit();
  }

  #workOf(name: string): WorkConfig | undefined {
    return this.#work.find(({ server }) => server.name === name);
  }

  /** What pages and metrics are made of. */
  get #facts() {
    return {
      servers: () => this.#status(),
      configIsGood: () => this.#configIsGood,
      work: (name: string) => this.#workOf(name),
      restore: async (server: ServerStatus, query: URLSearchParams) => {
        const { RestoreBuilder } = await import('./restore/builder.js');
        this.#restores ??= new RestoreBuilder();
        return this.#restores.answer(this.#workOf(server.name), server, query);
      },
    };
  }

  async #changeWeb(config: WebConfig | undefined): Promise<WebChange | undefined> {
    if (!config && !this.#web) return undefined;
    const { Web } = await import('./web/web.js');
    this.#web ??= new Web(this.#facts, this.#memory);
    return this.#web.change(config);
  }

  async #listen(listen: Listen) {
    const { MetricsListener } = await import('./metrics/listener.js');
    return { listen, listener: await MetricsListener.open(listen, this.#facts) };
  }

  readonly #asked: Control = async (
    request: ControlRequest,
  ): Promise<ControlResults[keyof ControlResults]> => {
    switch (request.command) {
      case 'status':
        return {
          ...{ version: VERSION, pid: process.pid, config: this.#file },
          servers: this.#status(request.server),
        };
      case 'reload':
        return this.reload();
      case 'pause':
        await this.#supervisor.pause(request.server);
        return {};
      case 'resume': {
        const { server, acceptGap = false } = request;
        this.#supervisor.resume(server, { acceptGap });
        for (const part of this.#parts) part.resume?.(server);
        return {};
      }
      case 'run':
        return { runs: this.#jobs.request(request.server, request.request) };
      case 'runs':
        return { runs: this.#jobs.runs(request.ids) };
      case 'cancel':
        return { runs: this.#jobs.cancel(request.server) };
    }
  };
}

function changesOf({ started, restarted, stopped, unchanged }: Applied): string {
  const parts = Object.entries({ started, restarted, stopped }).flatMap(([what, names]) =>
    names.length === 0 ? [] : [`${what} ${names.join(', ')}`],
  );
  const rest = `${unchanged.length} unchanged`;
  return `configuration loaded: ${[...parts, rest].join('; ')}`;
}
