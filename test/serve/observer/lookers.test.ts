import { expect, it } from 'vitest';
import type { LookAnswer, LookJob } from '../../../src/serve/observer/jobs.js';
import {
  Lookers,
  type LookersOptions,
  type LookThread,
} from '../../../src/serve/observer/lookers.js';
import { waitFor } from '../../support/wait.js';

const job = (directory: string): LookJob => ({ kind: 'wal', directory });

/** Threads whose looks end when they are told to. */
function scripted(options: Partial<LookersOptions> = {}) {
  const threads: { running: Map<string, (answer: LookAnswer) => void>; closed: boolean }[] = [];
  const start = (): LookThread => {
    const thread = { running: new Map<string, (answer: LookAnswer) => void>(), closed: false };
    threads.push(thread);
    return {
      run: async (one) =>
        one.kind === 'hello'
          ? { busy: 0, thread: threads.length }
          : new Promise((resolve) =>
              thread.running.set((one as { directory: string }).directory, resolve),
            ),
      close: async () => {
        thread.closed = true;
      },
    };
  };
  const lookers = new Lookers({
    ...{ start, threads: 2, most: 8, atATime: 1, patience: 60_000 },
    ...options,
  });
  const end = (directory: string, busy = 1): void => {
    const thread = threads.find(({ running }) => running.has(directory));
    const resolve = thread?.running.get(directory);
    thread?.running.delete(directory);
    resolve?.({ busy });
  };
  const look = (directory: string) => lookers.look(directory, job(directory));
  return { threads, end, look, lookers };
}

it('has so many looks under way, and gives the next to who looked there before', async () => {
  const { threads, end, look } = scripted();
  const all = ['a', 'b', 'c'].map(look);
  expect(threads.map(({ running }) => [...running.keys()])).toEqual([['a'], ['b']]);
  end('b');
  await all[1];
  expect(threads.map(({ running }) => [...running.keys()])).toEqual([['a'], ['c']]);
  end('a');
  end('c');
  await Promise.all(all);
  const again = look('b');
  expect([...threads[1]!.running.keys()]).toEqual(['b']);
  end('b');
  await again;
});

it('goes on with all others while disks hang, and lets go of their threads when they are back', async () => {
  let worked = 0;
  const activity = (thread: number): number => {
    // The first two hang.
    if (thread > 2) worked += 20;
    return thread > 2 ? worked : 7;
  };
  const { threads, end, look } = scripted({ patience: 20, activity });
  const hanging = ['x', 'y'].map(look);
  // The second of them begins when the second thread is given up, too.
  const others = ['a', 'b'].map(look);
  const isOn = (name: string) => threads.some(({ running }) => running.has(name));
  await waitFor(() => isOn('a') && isOn('b'));
  for (const name of ['a', 'b']) end(name);
  await Promise.all(others);
  expect(threads.slice(0, 2).every(({ closed }) => !closed)).toBe(true);
  end('x', 77);
  expect(await hanging[0]).toEqual({ busy: 77 });
  expect(threads[0]!.closed).toBe(true);
  end('y');
  await hanging[1];
  expect(threads[1]!.closed).toBe(true);
});

it('says of a thread that ended that it did, and looks again with another', async () => {
  let isSmall = true;
  const start = (): LookThread => ({
    run: async ({ kind }) => {
      if (kind !== 'hello' && isSmall) {
        isSmall = false;
        throw new Error('out of memory');
      }
      return { busy: 3 };
    },
    close: async () => {},
  });
  const lookers = new Lookers({ start, threads: 1, most: 2, atATime: 1, patience: 60_000 });
  const failed = await lookers.look('a', job('a'));
  expect(failed.error).toMatchObject({ code: 'WK_INTERNAL', message: 'out of memory' });
  expect(await lookers.look('a', job('a'))).toEqual({ busy: 3 });
});

it('gives what is urgent to a thread first', async () => {
  const { threads, end, look, lookers } = scripted({ threads: 1 });
  const all = [look('a'), look('b'), lookers.look('c', job('c'), true)];
  for (const name of ['a', 'c', 'b']) {
    await waitFor(() => threads[0]!.running.has(name));
    end(name);
  }
  await Promise.all(all);
});

it('waits for a thread that works, and has no more of them than it may', async () => {
  let worked = 0;
  const busy = scripted({
    ...{ threads: 1, patience: 10 },
    activity: () => {
      worked += 10;
      return worked;
    },
  });
  const slow = busy.look('slow');
  const next = busy.look('next');
  await waitFor(() => worked > 100);
  expect(busy.threads).toHaveLength(1);
  busy.end('slow');
  await slow;
  busy.end('next');
  await next;
  const { threads, end, look } = scripted({ threads: 1, most: 3, patience: 10, activity: () => 7 });
  const all = ['a', 'b', 'c', 'd'].map(look);
  await waitFor(() => threads.length === 3);
  await waitFor(() => threads[2]!.running.has('c'));
  expect(threads.some(({ running }) => running.has('d'))).toBe(false);
  end('b');
  await all[1];
  await waitFor(() => threads.some(({ running }) => running.has('d')));
  for (const name of ['a', 'c', 'd']) end(name);
  await Promise.all(all);
});
