import { expect, test } from 'vitest';
import type { StoreArchiveWriter } from '../../src/archive/store-archive-writer.js';
import { VolumeMemory } from '../../src/backup/volumes.js';
import { storeTail } from '../../src/backup/wal-tail.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import type { Lsn } from '../../src/lsn.js';
import { rootHistory } from '../../src/wal/timeline.js';

const STOPPED = new Error('stopped');

/** So many frames that nothing more may come. */
function full() {
  const sizes = { frame: 16, volume: 16 };
  const memory = new VolumeMemory({ codec: 'none', threads: 1, uploads: 1, ...sizes });
  const frames: Buffer[] = [];
  while (!memory.isFull) frames.push(memory.takeFrame());
  return { memory, frames };
}

test('room for more comes, or the stop does, also one that came before', async () => {
  const { memory, frames } = full();
  const stop = new AbortController();
  const room = memory.room(stop.signal);
  const stopped = expect(memory.room(AbortSignal.abort(STOPPED))).rejects.toBe(STOPPED);
  memory.releaseFrame(frames.pop() as Buffer);
  await room;
  await stopped;
  await memory.room(stop.signal);

  const waiting = full().memory.room(stop.signal);
  stop.abort(STOPPED);
  await expect(waiting).rejects.toBe(STOPPED);
});

test('WAL that a server does not send is not waited for by who was stopped before', async () => {
  const connection = {
    startReplication: async () => ({ finish: async () => {} }),
  } as unknown as ReplicationConnection;
  const state = { systemId: 1n, segmentSize: 1 << 20, history: rootHistory(1) };
  const missing = { name: '000000010000000000000002', timeline: 1, end: 0x200100n as Lsn };
  const tail = storeTail(
    connection,
    {} as StoreArchiveWriter,
    state as Parameters<typeof storeTail>[2],
    { ...missing, why: 'it is not there' },
    AbortSignal.abort(STOPPED),
  );
  await expect(tail).rejects.toBe(STOPPED);
});
