import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LOCK_FILE } from '../../src/files/lock.js';
import { signal } from '../support/processes.js';
import { archiveDirectory, receive } from '../support/receiving.js';
import type { ChaosEvent } from './events.js';
import type { World } from './world.js';

/** A receiver beside the one that is supervised; nobody's commits wait for it. */
function second(world: World, directory: string, args: string[]) {
  const { conninfo } = world.cluster;
  return receive(directory, `${conninfo} application_name=second`, args);
}

export const LOCK_EVENTS = {
  'two on one directory': {
    weight: 'alone',
    async run(world) {
      const { supervisor, directory, random } = world;
      const first = supervisor.pid;
      // Also one that does not move holds its directory.
      const stop = random.chance(0.5);
      if (stop) signal(first, 'SIGSTOP');
      try {
        const run = second(world, directory, ['-S', 's', '--synchronous']);
        const { code } = await run.exit;
        if (code !== 1 || !run.stderr.includes(`in use by another receiver (pid ${first} `)) {
          throw new Error(`a second receiver ended with ${code}: ${run.stderr}`);
        }
        world.note('second receiver refused');
      } finally {
        if (stop) signal(first, 'SIGCONT');
      }
    },
  },
  'two on one slot': {
    weight: 'alone',
    async run(world) {
      const run = second(world, archiveDirectory(), ['-S', 's', '--synchronous', '-n']);
      const { code } = await run.exit;
      if (code !== 1 || !/replication slot "s" is active for PID/.test(run.stderr)) {
        throw new Error(`a second receiver on the slot ended with ${code}: ${run.stderr}`);
      }
      world.note('second user of the slot refused');
    },
  },
  'slot taken by another': {
    weight: 'alone',
    async run(world) {
      const { supervisor, random } = world;
      // It waits for the slot, and gets it while the first one is away.
      await supervisor.hold('SIGKILL');
      const run = second(world, archiveDirectory(), ['-S', 's', '--synchronous']);
      await run.waitForOutput(/starting log streaming/, 60_000);
      await world.writeWal(random.size(2_000_000));
      const said = supervisor.said.length;
      supervisor.release();
      await supervisor.hears(/replication slot "s" is active for PID/, said);
      await run.stop(random.pick(['SIGKILL', 'SIGTERM']));
    },
  },
  'stale lock after a reboot': {
    weight: 'alone',
    async run(world) {
      const { supervisor, directory } = world;
      await supervisor.hold('SIGKILL');
      const path = join(directory, LOCK_FILE);
      const holder = JSON.parse(readFileSync(path, 'utf8'));
      // The machine was booted since, and the number now is of a process that runs: ours.
      const stale = { ...holder, bootId: randomUUID(), pid: process.pid };
      writeFileSync(path, `${JSON.stringify(stale)}\n`);
      const said = supervisor.said.length;
      supervisor.release();
      await supervisor.hears(/starting log streaming/, said);
    },
  },
} as const satisfies Record<string, ChaosEvent>;
