import { basename, dirname, join } from 'node:path';
import { writeFileDurably } from './durable.js';

/** One value of a metric, with labels beside those that all have. */
export type Sample = readonly [labels: Readonly<Record<string, string>>, value: number | string];

/** Metrics in Prometheus's text format, as node_exporter takes them from a file. All are gauges. */
export class MetricsText {
  readonly #lines: string[] = [];
  readonly #labels: Readonly<Record<string, string>>;

  /** @param labels that every sample has */
  constructor(labels: Readonly<Record<string, string>>) {
    this.#labels = labels;
  }

  /** Without samples there is no metric: nothing is told that was not measured. */
  add(name: string, help: string, samples: readonly Sample[]): void {
    if (samples.length === 0) return;
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} gauge`);
    for (const [labels, value] of samples) {
      const all = Object.entries({ ...this.#labels, ...labels });
      const text = all.map(([label, of]) => `${label}="${escaped(of)}"`).join(',');
      this.#lines.push(`${name}{${text}} ${value}`);
    }
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`;
  }
}

/** A label's value may be any text; these three end or begin something in it. */
function escaped(text: string): string {
  return text.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n');
}

/**
 * Puts metrics in place in one step: who reads sees the old ones or the new ones.
 * @throws StorageError
 */
export async function writeTextfile(path: string, metrics: MetricsText): Promise<void> {
  // The exporter reads what ends in .prom, and nothing else.
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  await writeFileDurably(path, metrics.toString(), { mode: 0o644, temporary });
}
