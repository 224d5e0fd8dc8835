import { join } from 'node:path';
import { expect } from 'vitest';
import type { CliOptions, CliRun } from './cli.js';
import { packageRoot } from './scratch.js';

/** A stage of a run: the first call of its main thread that names such a path. */
export interface Stage {
  what: string;
  /** Behind the call: it has succeeded. */
  when: 'before' | 'after';
  call: 'link' | 'mkdir' | 'rename' | 'unlink';
  /** Either of the two of a link or a rename. */
  path: RegExp;
}

/**
 * Has a run send SIGKILL to itself at a stage: no machine is too fast or too slow to be there in
 * time. Absent: it does not.
 */
export function dyingAt(stage: Stage | undefined): CliOptions {
  if (!stage) return {};
  const { when, call, path } = stage;
  const preload = join(packageRoot, 'test/support/dying-at-preload.cjs');
  return {
    nodeArgs: ['--require', preload],
    env: { WALKEEP_TEST_DIES: JSON.stringify({ when, call, path: path.source }) },
  };
}

/** Waits for it to come there. */
export async function died(run: CliRun, { what }: Stage): Promise<void> {
  const { signal } = await run.exit;
  expect(signal, `${what}\n${run.stderr}`).toBe('SIGKILL');
}
