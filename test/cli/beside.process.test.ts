import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { besideEnvironment } from '../../src/beside.js';
import { killAtEnd, packageRoot, scratchDir } from '../support/scratch.js';

function beside(...args: string[]): { child: ChildProcess; told: unknown[] } {
  const child = fork(join(packageRoot, 'bin', 'walkeep'), args, {
    env: besideEnvironment({ PATH: process.env.PATH, HOME: scratchDir('home') }),
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    execArgv: [],
  });
  killAtEnd(child);
  const told: unknown[] = [];
  child.on('message', (message) => void told.push(message));
  return { child, told };
}

it('tells the process that began it of an error', async () => {
  const { child, told } = beside('verify', '/nowhere/at/all');
  const [code] = await once(child, 'close');
  expect(code).toBe(2);
  expect(told).toEqual([
    { kind: 'error', code: expect.stringMatching(/^WK_/), message: expect.any(String) },
  ]);
});

it('ends when that process is gone', async () => {
  // It waits for something to ship.
  const { child } = beside('ship', scratchDir('wal'), scratchDir('place'));
  await once(child, 'spawn');
  child.disconnect();
  // Not "close": where the channel was closed here, Node.js has none.
  expect(await once(child, 'exit')).toEqual([0, null]);
});
