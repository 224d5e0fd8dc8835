import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingForRgw } from '../test/support/rgw.js';
import { giveToServer, packageRoot } from '../test/support/scratch.js';
import { median, pairedRatio } from './statistics.js';
import type { Timed } from './timed-command.js';

let root: string | undefined;

/** A directory for this run's files, removed at its end. WALKEEP_BENCH_DIR says on which disk. */
export function scratchRoot(): string {
  if (!root) {
    root = mkdtempSync(join(process.env.WALKEEP_BENCH_DIR ?? tmpdir(), 'walkeep-bench-'));
    const made = root;
    process.once('exit', () => rmSync(made, { recursive: true, force: true }));
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => process.exit(1));
  }
  return root;
}

/** A directory in it that belongs to the servers' user. */
export function serverScratch(prefix: string): string {
  const directory = mkdtempSync(join(scratchRoot(), `${prefix}-`));
  chmodSync(scratchRoot(), 0o711);
  giveToServer(directory);
  return directory;
}

/** Prints a table with a title, columns aligned. */
export function print(title: string, head: string[], rows: string[][]): void {
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map((r) => (r[i] ?? '').length)));
  const line = (cells: string[]) =>
    cells
      .map((c, i) => (i === 0 ? c.padEnd(widths[i] as number) : c.padStart(widths[i] as number)))
      .join('  ');
  process.stdout.write(
    `\n${title}\n${line(head)}\n${widths.map((w) => '-'.repeat(w)).join('  ')}\n`,
  );
  for (const row of rows) process.stdout.write(`${line(row)}\n`);
}

/** `a ratio [from, to]` of what was measured side by side, as `pairedRatio` has it. */
export function ratioText(ours: readonly number[], theirs: readonly number[]): string {
  const { ratio, low, high } = pairedRatio(ours, theirs);
  return `${ratio.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
}

/**
 * Prints how fast commands were with the same bytes, and what they took of the processors.
 * @param others columns of ratios, by their heads: to what each command is compared there, if at all
 */
export function printSpeeds(
  title: string,
  megabytes: number,
  results: Readonly<Record<string, readonly Timed[]>>,
  others: Readonly<Record<string, (name: string) => string | undefined>>,
): void {
  const speeds = (runs: readonly Timed[]) => runs.map(({ ms }) => (megabytes / ms) * 1000);
  const rows = Object.entries(results).map(([name, runs]) => [
    name,
    median(speeds(runs)).toFixed(0),
    ...Object.values(others).map((otherOf) => {
      const other = results[otherOf(name) ?? ''];
      return other ? ratioText(speeds(runs), speeds(other)) : '';
    }),
    (median(runs.map(({ cpuMs }) => cpuMs)) / megabytes).toFixed(2),
  ]);
  print(title, ['command', 'MB/s', ...Object.keys(others), 'CPU s/GB'], rows);
}

/** Ends the process, and says why, where there is no object store to measure with. */
export function requireRgw(): void {
  const missing = missingForRgw();
  if (missing.length === 0) return;
  process.stdout.write(`Not measured: ${missing.join(', ')} not installed.\n`);
  process.exit(0);
}

/** Writes the raw figures as JSON beside the table. */
export function saveResult(name: string, data: unknown): void {
  const directory = join(packageRoot, 'benchmarks', 'results');
  mkdirSync(directory, { recursive: true });
  const machine = { cpus: cpus().length, model: cpus()[0]?.model, node: process.version };
  const path = join(directory, `${name}.json`);
  writeFileSync(
    path,
    `${JSON.stringify({ at: new Date().toISOString(), machine, data }, null, 1)}\n`,
  );
}
