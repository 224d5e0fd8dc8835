import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { killAtEnd, scratchDir } from './scratch.js';
import { freePort } from './server-config.js';
import { findTool } from './tools.js';
import { waitFor } from './wait.js';

export const prometheus = findTool('prometheus');

export interface ActiveAlert {
  labels: Record<string, string>;
  state: 'pending' | 'firing';
}

/** A Prometheus that scrapes one address each second. */
export class Prometheus {
  readonly #port: number;
  readonly #stop: () => Promise<unknown>;

  private constructor(port: number, stop: () => Promise<unknown>) {
    this.#port = port;
    this.#stop = stop;
  }

  /** @param rules as text */
  static async start(target: string, rules: string): Promise<Prometheus> {
    const dir = scratchDir('prometheus');
    const port = await freePort();
    const config = {
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: ['rules.yaml'],
      scrape_configs: [{ job_name: 'walkeep', static_configs: [{ targets: [target] }] }],
    };
    writeFileSync(join(dir, 'rules.yaml'), rules);
    writeFileSync(join(dir, 'prometheus.yaml'), JSON.stringify(config));
    const child = spawn(
      prometheus as string,
      [
        `--config.file=${join(dir, 'prometheus.yaml')}`,
        `--storage.tsdb.path=${join(dir, 'data')}`,
        ...[`--web.listen-address=127.0.0.1:${port}`, '--log.level=error'],
      ],
      { stdio: 'ignore' },
    );
    killAtEnd(child);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const started = new Prometheus(port, async () => {
      child.kill('SIGKILL');
      await ended;
    });
    await waitFor(() => started.#get('/-/ready').then(() => true), { what: 'Prometheus' });
    return started;
  }

  async #get(path: string): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.#port}${path}`);
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.text();
  }

  /** The value of an expression that has one, or undefined. */
  async value(expr: string): Promise<number | undefined> {
    const text = await this.#get(`/api/v1/query?query=${encodeURIComponent(expr)}`);
    const [found] = JSON.parse(text).data.result as { value: [number, string] }[];
    return found && Number(found.value[1]);
  }

  async alerts(): Promise<ActiveAlert[]> {
    return JSON.parse(await this.#get('/api/v1/alerts')).data.alerts;
  }

  stop(): Promise<unknown> {
    return this.#stop();
  }
}
