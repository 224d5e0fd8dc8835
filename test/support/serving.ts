import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { askControl } from '../../src/serve/control/client.js';
import type { ServerStatus } from '../../src/serve/status.js';
import { type CliOptions, type CliRun, runCli } from './cli.js';
import { giveToServer, scratchDir } from './scratch.js';
import { waitFor } from './wait.js';

/** A server as a configuration has it: its keys and values. */
export type ServerEntry = Record<string, string | number | boolean | object>;

/** A running `walkeep serve` with its configuration. */
export class Serving {
  readonly dir = scratchDir('serve');
  readonly file = join(this.dir, 'walkeep.yaml');
  readonly socket = join(this.dir, 'control');
  run: CliRun;
  /** More sections. */
  readonly more: object;

  readonly #options: CliOptions;

  private constructor(servers: Record<string, ServerEntry>, more: object, options: CliOptions) {
    this.more = more;
    this.#options = options;
    if (options.uid !== undefined) giveToServer(this.dir);
    this.write(servers);
    this.run = this.#start();
  }

  /** Starts it; resolves when it is ready. */
  static async start(
    servers: Record<string, ServerEntry>,
    more = {},
    options: CliOptions = {},
  ): Promise<Serving> {
    const serving = new Serving(servers, more, options);
    await serving.run.waitForOutput(/"event":"ready"/);
    return serving;
  }

  #start(): CliRun {
    return runCli(['serve', '-c', this.file], this.#options);
  }

  async restart(): Promise<void> {
    this.run = this.#start();
    await this.run.waitForOutput(/"event":"ready"/);
  }

  /** Writes the configuration; JSON is YAML. */
  write(servers: Record<string, ServerEntry>): void {
    writeFileSync(
      this.file,
      JSON.stringify(
        { version: 1, control: { socket: this.socket }, ...this.more, servers },
        null,
        2,
      ),
    );
  }

  /** Lines of the log of one kind. */
  events(event: string): { server?: string; message: string; code?: string; hint?: string }[] {
    // The last piece may be a part of a line yet.
    return this.run.stderr
      .split('\n')
      .slice(0, -1)
      .filter((line) => line.includes(`"event":"${event}"`))
      .map((line) => JSON.parse(line));
  }

  async ctl(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
    const run = runCli(['ctl', ...args, '--socket', this.socket]);
    const { code } = await run.exit;
    return { code, stdout: run.stdout, stderr: run.stderr };
  }

  async status(name: string): Promise<ServerStatus> {
    const request = { command: 'status' as const, server: name };
    const { servers } = await askControl(this.socket, request);
    return servers[0] as ServerStatus;
  }

  async all(): Promise<ServerStatus[]> {
    return (await askControl(this.socket, { command: 'status' })).servers;
  }

  async pidOf(name: string): Promise<number> {
    return (await this.status(name)).pid as number;
  }

  /** Waits until a server is in a state. */
  async waitState(name: string, state: ServerStatus['state']): Promise<ServerStatus> {
    return waitFor(
      async () => {
        const status = await this.status(name);
        if (status.state !== state) throw new Error(JSON.stringify(status));
        return status;
      },
      { what: `${name} to be ${state}`, timeoutMs: 120_000 },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.run.stop('SIGKILL');
  }
}
