import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { PostgresServer } from './postgres.js';
import { writeWal } from './receiving.js';

const PAGE = 8192;

/** Where a server died. */
export interface KilledSwitch {
  /** File name of the segment. */
  segment: string;
  path: string;
  /** Offset of the first byte behind the switch record. */
  from: number;
  /** It died before it had filled the rest with zeros. */
  hit: boolean;
}

/**
 * Kills a server, all its processes with SIGKILL, while it fills the rest of a recycled segment up
 * behind XLOG_SWITCH: as soon as a page a part of the way in has become zero.
 *
 * @param part of the rest that is to be filled by then, 0 to 1
 */
export async function killInSwitch(server: PostgresServer, part: number): Promise<KilledSwitch> {
  const path = await recycledSegment(server);
  const client = await server.client();
  const { rows } = await client.query(
    'SELECT pg_backend_pid() AS pid, (pg_current_wal_insert_lsn() - $1)::int8::text AS at',
    ['0/0'],
  );
  const { pid, at } = rows[0] as { pid: number; at: string };
  const from = (Number(BigInt(at) % BigInt(server.segmentSize)) + 24 + 7) & ~7;
  const pages = Math.floor((server.segmentSize - from) / PAGE) - 1;
  const watched = Math.ceil(from / PAGE) * PAGE + Math.floor(pages * part) * PAGE;
  const fd = openSync(path, 'r');
  try {
    const done = client.query('SELECT pg_switch_wal()').catch(() => {});
    await setImmediate();
    // Without a pause: the whole takes the server some milliseconds.
    for (const end = Date.now() + 3000; Date.now() < end && !isZero(fd, watched); );
    process.kill(pid, 'SIGSTOP');
    await server.kill9();
    await done;
    let hit = false;
    for (let page = watched; page < server.segmentSize && !hit; page += PAGE)
      hit = !isZero(fd, page);
    return { segment: path.slice(-24), path, from, hit };
  } finally {
    closeSync(fd);
  }
}

/** Has the server write until its current segment is one that held other WAL before. */
async function recycledSegment(server: PostgresServer): Promise<string> {
  for (;;) {
    const path = join(server.dataDir, 'pg_wal', await server.currentSegment());
    const fd = openSync(path, 'r');
    const recycled = !isZero(fd, server.segmentSize - PAGE);
    closeSync(fd);
    if (recycled) return path;
    await writeWal(server, server.segmentSize);
    await server.switchWal();
    await server.sql('CHECKPOINT');
    await writeWal(server, 100_000);
  }
}

function isZero(fd: number, at: number): boolean {
  const page = Buffer.alloc(PAGE);
  readSync(fd, page, 0, PAGE, at);
  return page.every((byte) => byte === 0);
}

/**
 * Writes other bytes behind a switch record, as a standby has them that had got a part of the rest
 * only: its own recycled file differs.
 */
export function paintTail({ path, from }: KilledSwitch, size: number, byte: number): void {
  const fd = openSync(path, 'r+');
  try {
    writeSync(fd, Buffer.alloc(size - from, byte), 0, size - from, from);
  } finally {
    closeSync(fd);
  }
}
