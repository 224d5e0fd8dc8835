import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type CliOptions, runCli } from './cli.js';

/** Every entry of a directory with what it holds: equal before and after means untouched. */
export function snapshot(directory: string): string[] {
  return readdirSync(directory)
    .sort()
    .map((name) => {
      const path = join(directory, name);
      const { mode, size } = lstatSync(path);
      const facts = `${name} ${mode.toString(8)}`;
      if ((mode & 0o170000) === 0o120000) return `${facts} -> ${readlinkSync(path)}`;
      if ((mode & 0o170000) === 0o040000) return `${facts} [${snapshot(path).join(', ')}]`;
      const digest = createHash('sha256').update(readFileSync(path)).digest('hex');
      return `${facts} ${size} ${digest}`;
    });
}

export interface Refusal {
  args: string[];
  /** The directory that must stay as it is; absent: none is given. */
  directory?: string;
  /** What the only error must say: its first line, without `PROGRAM: error: `. */
  message: RegExp;
  /** What the hint or detail must say; absent: whatever. */
  advice?: RegExp;
}

/**
 * Runs a receiver that has to refuse: exit code 1, nothing on stdout, one error in clear words and
 * never a stack trace, the directory as it was.
 */
export async function expectRefusal(refusal: Refusal, options: CliOptions = {}): Promise<void> {
  const { args, directory, message, advice } = refusal;
  const program = options.program ?? 'walkeep';
  const before = directory === undefined ? [] : snapshot(directory);
  const command = program === 'walkeep' ? ['receive'] : [];
  const where = directory === undefined ? [] : ['-D', directory];
  await using run = runCli([...command, ...where, ...args], options);
  const timer = setTimeout(() => run.child.kill('SIGKILL'), 15_000);
  const exit = await run.exit;
  clearTimeout(timer);
  expect({ ...exit, stdout: run.stdout, stderr: run.stderr }).toMatchObject({
    code: 1,
    signal: null,
    stdout: '',
  });
  const lines = run.stderr.trimEnd().split('\n');
  const errors = lines.filter((line) => line.startsWith(`${program}: error: `));
  // Upstream's last word under --no-loop.
  const own = errors.filter((line) => line !== `${program}: error: disconnected`);
  const misuse = lines.filter((line) => /^\w+: (unrecognized|option|invalid)/.test(line));
  expect(own.length + misuse.length, run.stderr).toBe(1);
  expect((own[0] ?? misuse[0] ?? '').replace(`${program}: error: `, '')).toMatch(message);
  if (advice) expect(run.stderr).toMatch(advice);
  // No stack, no internal name, no line that nobody speaks.
  expect(run.stderr).not.toMatch(/^\s+at |node:|\.js:\d|undefined|\[object/m);
  if (directory !== undefined) expect(snapshot(directory)).toEqual(before);
}
