import { readFileSync } from 'node:fs';
import { killInSwitch, paintTail } from '../support/killed-switch.js';
import { childrenOf, isRunning, signal } from '../support/processes.js';
import { delay, waitFor } from '../support/wait.js';
import { endOfWal } from './checks.js';
import { DISK_EVENTS } from './events-disk.js';
import { LOCK_EVENTS } from './events-lock.js';
import { NETWORK_EVENTS } from './events-network.js';
import { SLOT_EVENTS } from './events-slot.js';
import type { World } from './world.js';

/** One disturbance; resolves when it is over, whatever is still to heal then. */
export interface ChaosEvent {
  run(world: World): Promise<void>;
  /**
   * `light`: may happen while another one does; `heavy`: only a light one may happen beside it;
   * `alone`: it watches what happens, and nothing else may disturb that.
   */
  weight: 'light' | 'heavy' | 'alone';
}

const RECEIVER_EVENTS = {
  'receiver killed': { weight: 'light', run: (world) => world.supervisor.end('SIGKILL') },
  'receiver terminated': { weight: 'light', run: (world) => world.supervisor.end('SIGTERM') },
  'receiver stopped': {
    weight: 'light',
    run: (world) => stopFor(world.supervisor.pid, world.span(2500)),
  },
  'receiver killed as it starts': {
    weight: 'light',
    async run(world) {
      for (let i = 1 + world.random.below(3); i > 0; i--) {
        const { restarts } = world.supervisor;
        await world.supervisor.end('SIGKILL');
        await waitFor(() => world.supervisor.restarts > restarts);
        await delay(world.random.below(600));
      }
    },
  },
} as const satisfies Record<string, ChaosEvent>;

const SERVER_EVENTS = {
  'walsender killed': {
    weight: 'heavy',
    async run(world) {
      const pid = await world.walSender();
      // The postmaster takes it for a crash: all sessions end and the server recovers.
      if (pid !== undefined) signal(pid, 'SIGKILL');
    },
  },
  'walsender terminated': {
    weight: 'light',
    async run(world) {
      const pid = await world.walSender();
      if (pid !== undefined) signal(pid, 'SIGTERM');
    },
  },
  'walsender stopped': {
    weight: 'heavy',
    async run(world) {
      const pid = await world.walSender();
      if (pid !== undefined) await stopFor(pid, world.span(6000));
    },
  },
  'postmaster killed': {
    weight: 'heavy',
    async run(world) {
      const { pid } = world.primary;
      const children = childrenOf(pid);
      signal(pid, 'SIGKILL');
      await world.primary.waitStopped();
      // They go on until they notice, and no server starts before.
      await waitFor(() => !children.some(isRunning), { what: 'the orphans to end' });
      await world.primary.start();
    },
  },
  'postmaster stopped': {
    weight: 'heavy',
    async run(world) {
      const stopped = stopFor(world.primary.pid, world.span(3000));
      // Who connects now gets a connection and no answer.
      if (world.random.chance(0.5)) await world.supervisor.end('SIGKILL');
      await stopped;
    },
  },
  'server killed': {
    weight: 'heavy',
    async run(world) {
      await world.primary.kill9();
      await world.primary.start();
    },
  },
  'server restarted': {
    weight: 'heavy',
    async run(world) {
      await world.primary.stop('fast', 60_000);
      await world.primary.start();
    },
  },
  'standby killed': {
    weight: 'heavy',
    async run(world) {
      const standby = await world.cluster.redundant();
      await standby.kill9();
      await standby.start();
    },
  },
  'server killed as it switches': {
    weight: 'alone',
    async run(world) {
      const { primary, random } = world;
      const keep = primary.setting('wal_keep_size');
      // The segments that come next are made of old ones: other WAL stands where nothing is written.
      await world.cluster.redundant();
      await primary.configure({ wal_keep_size: '4MB' });
      for (let i = 1 + random.below(3); i > 0; i--) {
        const killed = await killInSwitch(primary, random.below(60) / 100);
        if (killed.hit) world.note('killed within the fill');
        // It is short in small segments: what a kill leaves there may be anything.
        const from = endOfWal(killed.segment, readFileSync(killed.path));
        if (random.chance(0.5)) paintTail({ ...killed, from }, primary.segmentSize, 0xd1);
        await primary.start();
        await world.settle(5);
      }
      await primary.configure({ wal_keep_size: keep });
    },
  },
  'two failovers while the receiver is away': {
    weight: 'alone',
    async run(world) {
      const spare = await world.cluster.spare();
      // What comes before its backup the spare does not have: more than all that were under way.
      await world.settle(20);
      await world.supervisor.hold(world.random.pick(['SIGKILL', 'SIGTERM']));
      try {
        await world.cluster.doubleFailover(spare);
      } finally {
        world.supervisor.release();
      }
    },
  },
  failover: { weight: 'heavy', run: (world) => world.cluster.failover() },
  switchover: {
    weight: 'heavy',
    async run(world) {
      world.note(`switchover, old primary ${await world.cluster.switchover()}`);
    },
  },
} as const satisfies Record<string, ChaosEvent>;

/** SIGSTOP, and after `ms` SIGCONT whatever happened. */
async function stopFor(pid: number, ms: number): Promise<void> {
  signal(pid, 'SIGSTOP');
  try {
    await delay(ms);
  } finally {
    signal(pid, 'SIGCONT');
  }
}

export const EVENTS = {
  ...RECEIVER_EVENTS,
  ...SERVER_EVENTS,
  ...NETWORK_EVENTS,
  ...DISK_EVENTS,
  ...LOCK_EVENTS,
  ...SLOT_EVENTS,
} as const satisfies Record<string, ChaosEvent>;

export type EventName = keyof typeof EVENTS;
