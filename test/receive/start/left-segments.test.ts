import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Ledger, type LedgerEntry } from '../../../src/archive/ledger.js';
import { scanDirectory } from '../../../src/archive/wal-directory.js';
import type { ReplicationConnection } from '../../../src/connection/connection.js';
import { CorruptWalError, FsyncError } from '../../../src/errors.js';
import { nodeFileSystem } from '../../../src/files/file-system.js';
import { formatLsn, type Lsn } from '../../../src/lsn.js';
import type { Refusal } from '../../../src/receive/refusals.js';
import {
  finishLeft,
  leftSegments,
  removeCopies,
} from '../../../src/receive/start/left-segments.js';
import { ReceivingDirectory } from '../../../src/receive/start/receiving-directory.js';
import { RemovedWal } from '../../../src/receive/start/removed-wal.js';
import type { ServerState } from '../../../src/server/server-state.js';
import { parseTimelineHistory, rootHistory } from '../../../src/wal/timeline.js';
import { faultyFileSystem } from '../../support/faulty-fs.js';
import { makeWal } from '../../wal/synthetic.js';

const MB = 1024 * 1024;
const END = BigInt(6 * MB);
const FIRST = '000000010000000000000005';
const SECOND = '000000010000000000000006';

/** Segments 5 and 6; a record of 30 kB goes from one into the other. */
const wal = makeWal(
  Array.from({ length: 40 }, (_, i) => ({ body: Buffer.alloc(30_000, i + 1) })),
  { start: BigInt(5 * MB) },
).bytes;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'walkeep-left-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** A file of one segment that holds these bytes. */
function store(name: string, bytes: Uint8Array): void {
  const content = Buffer.alloc(MB);
  content.set(bytes);
  writeFileSync(join(dir, name), content);
}

/** What is in the directory beside the ledger. */
function names(): string[] {
  return readdirSync(dir)
    .filter((name) => name !== '.walkeep-ledger')
    .sort();
}

async function finish(acknowledged = 0n, ...known: LedgerEntry[]) {
  const ledger = (await Ledger.open(dir, { create: true })) as Ledger;
  if (known.length > 0) await ledger.append(...known);
  const scan = await scanDirectory(dir, MB);
  const left = leftSegments(scan, ledger.state);
  const server = { segmentSize: MB, systemId: 77n, fileMode: 0o600 } as ServerState;
  const first = await finishLeft(dir, server, left, scan, ledger, acknowledged, nodeFileSystem);
  await ledger.close();
  return { left: left.map((f) => f.name), first: first?.name };
}

it('finishes one whose rename a power cut lost, though not that of the next', async () => {
  const long = makeWal(
    Array.from({ length: 100 }, (_, i) => ({ body: Buffer.alloc(30_000, i + 1) })),
    { start: BigInt(5 * MB) },
  ).bytes;
  const part = (n: number) => long.subarray(n * MB, (n + 1) * MB);
  store(`${FIRST}.partial`, part(0));
  store(SECOND, part(1));
  store('000000010000000000000007.partial', part(2));
  // It may as well be what somebody left there.
  expect((await finish()).left).toEqual([]);
  const known = { type: 'complete', lsn: BigInt(7 * MB) as Lsn, timeline: 1 } as const;
  const opened = { type: 'open', systemId: 77n, segmentSize: MB, version: 'x' } as const;
  expect(await finish(0n, opened, known)).toEqual({ left: [`${FIRST}.partial`], first: undefined });
  expect(readFileSync(join(dir, FIRST)).equals(part(0))).toBe(true);
  expect(existsSync(join(dir, `${FIRST}.partial`))).toBe(false);
});

it('begins before the first start where a later timeline that was not noted yet does', async () => {
  const child = makeWal(
    Array.from({ length: 100 }, (_, i) => ({ body: Buffer.alloc(30_000, i + 1) })),
    { start: BigInt(5 * MB), timeline: 2 },
  ).bytes;
  const name = (n: number) => `00000002000000000000000${n}`;
  for (const n of [5, 6, 7])
    store(`${name(n)}.partial`, child.subarray((n - 5) * MB, (n - 4) * MB));
  store('000000010000000000000006.partial', wal.subarray(MB));
  const opened = { type: 'open', systemId: 77n, segmentSize: MB, version: 'x' } as const;
  const start = { start: BigInt(6 * MB) as Lsn, why: 'first start' };
  const first = { type: 'timeline', timeline: 1, ...start } as const;
  const { left } = await finish(0n, opened, first);
  expect(left).toEqual([`${name(5)}.partial`, `${name(6)}.partial`]);
  // Where the archive's own timeline begins nothing before it counts.
  for (const n of [5, 6]) store(`${name(n)}.partial`, child.subarray((n - 5) * MB, (n - 4) * MB));
  for (const n of [5, 6]) rmSync(join(dir, name(n)), { force: true });
  const known = { type: 'timeline', timeline: 2, ...start } as const;
  expect((await finish(0n, known)).left).toEqual([`${name(6)}.partial`]);
});

it('finishes a segment whose last record is whole in the next file', async () => {
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  store(`${SECOND}.partial`, wal.subarray(MB));
  expect(await finish()).toEqual({ left: [`${FIRST}.partial`], first: undefined });
  expect(readFileSync(join(dir, FIRST)).equals(wal.subarray(0, MB))).toBe(true);
  expect(names()).toEqual([FIRST, `${SECOND}.partial`]);
});

it('tells a new ledger of a segment before it has its name', async () => {
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  store(`${SECOND}.partial`, wal.subarray(MB));
  await finish();
  const ledger = (await Ledger.open(dir, { create: true })) as Ledger;
  expect(ledger.state).toMatchObject({ systemId: 77n, timeline: 1, completeLsn: END });
  await ledger.close();
});

it('removes what was stored compressed of a segment that gets its name', async () => {
  writeFileSync(join(dir, `${FIRST}.gz.partial`), gzipSync(wal.subarray(0, 1000)));
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  store(`${SECOND}.partial`, wal.subarray(MB));
  await finish();
  expect(names()).toEqual([FIRST, `${SECOND}.partial`]);
});

it('writes it anew: after a failed fsync what is read need not be stored', async () => {
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  store(`${SECOND}.partial`, wal.subarray(MB));
  const { ino } = statSync(join(dir, `${FIRST}.partial`));
  await finish();
  expect(statSync(join(dir, FIRST)).ino).not.toBe(ino);
});

it('finishes one that a stop left compressed', async () => {
  writeFileSync(join(dir, `${FIRST}.gz.partial`), gzipSync(wal.subarray(0, MB)));
  store(`${SECOND}.partial`, wal.subarray(MB));
  expect(await finish()).toEqual({ left: [`${FIRST}.gz.partial`], first: undefined });
  expect(readFileSync(join(dir, FIRST)).equals(wal.subarray(0, MB))).toBe(true);
  expect(names()).toEqual([FIRST, `${SECOND}.partial`]);
});

it('removes with it only those compressed ones that it has all of', async () => {
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  store(`${SECOND}.partial`, wal.subarray(MB));
  const other = Buffer.from(wal.subarray(0, 9000));
  other[8000] = other[8000]! ^ 1;
  writeFileSync(join(dir, `${FIRST}.gz.partial`), gzipSync(wal.subarray(0, 9000)));
  await finish();
  expect(names()).toEqual([FIRST, `${SECOND}.partial`]);
  rmSync(join(dir, FIRST));
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  writeFileSync(join(dir, `${FIRST}.gz.partial`), gzipSync(other));
  await finish();
  expect(names()).toEqual([FIRST, `${FIRST}.gz.partial`, `${SECOND}.partial`]);
});

it('does not finish a compressed one that is not whole', async () => {
  writeFileSync(join(dir, `${FIRST}.gz.partial`), gzipSync(wal.subarray(0, MB - 1)));
  store(`${SECOND}.partial`, wal.subarray(MB));
  expect((await finish(END + 500n)).first).toBe(`${FIRST}.gz.partial`);
  expect(names()).toEqual([`${FIRST}.gz.partial`, `${SECOND}.partial`]);
});

it('needs to know that WAL behind a record that is cut off was acknowledged', async () => {
  // The server may have removed the segment by then.
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  store(`${SECOND}.partial`, wal.subarray(MB, MB + 500));
  expect((await finish(END - 1n)).first).toBe(`${FIRST}.partial`);
  expect(existsSync(join(dir, FIRST))).toBe(false);
  expect((await finish(END + 500n)).first).toBeUndefined();
  expect(existsSync(join(dir, FIRST))).toBe(true);
});

it('does not finish a damaged one, whatever was acknowledged', async () => {
  const bad = Buffer.from(wal.subarray(0, MB));
  bad.fill(0, 300_000, 300_512);
  store(`${FIRST}.partial`, bad);
  store(`${SECOND}.partial`, wal.subarray(MB, MB + 500));
  expect((await finish((END + 500n) as Lsn)).first).toBe(`${FIRST}.partial`);
});

it('checks the record that goes on in its first page against the file before', async () => {
  const third = '000000010000000000000007';
  const more = makeWal(
    Array.from({ length: 80 }, (_, i) => ({ body: Buffer.alloc(30_000, i + 1) })),
    { start: BigInt(5 * MB) },
  ).bytes;
  const torn = Buffer.from(more.subarray(MB, 2 * MB));
  // Without the file before nothing has a checksum over these bytes.
  torn.fill(0, 1024, 1536);
  store(FIRST, more.subarray(0, MB));
  store(`${SECOND}.partial`, torn);
  store(`${third}.partial`, more.subarray(2 * MB));
  expect((await finish()).first).toBe(`${SECOND}.partial`);
  rmSync(join(dir, FIRST));
  expect((await finish()).first).toBe(`${SECOND}.partial`);
  store(FIRST, more.subarray(0, MB));
  store(`${SECOND}.partial`, more.subarray(MB, 2 * MB));
  expect((await finish()).first).toBeUndefined();
});

it("does not take an ancestor's complete file for the child's", async () => {
  // Behind the fork it has other bytes: the old primary went on for a while.
  store(FIRST, wal.subarray(0, MB));
  store(FIRST.replace('00000001', '00000002').concat('.partial'), wal.subarray(0, MB));
  store(SECOND.replace('00000001', '00000002').concat('.partial'), wal.subarray(MB));
  expect((await finish()).left).toEqual(['000000020000000000000005.partial']);
});

it('finishes several', async () => {
  const third = '000000010000000000000007';
  const records = Array.from({ length: 80 }, (_, i) => ({ body: Buffer.alloc(30_000, i + 1) }));
  const { bytes } = makeWal(records, { start: BigInt(5 * MB) });
  store(`${FIRST}.partial`, bytes.subarray(0, MB));
  store(`${SECOND}.partial`, bytes.subarray(MB, 2 * MB));
  store(`${third}.partial`, bytes.subarray(2 * MB, 2 * MB + 500));
  expect((await finish(BigInt(7 * MB))).first).toBeUndefined();
  expect(names()).toEqual([FIRST, SECOND, `${third}.partial`]);
});

it('removes a plain partial whose compressed segment is complete, if it holds the same', async () => {
  const copies = async () => {
    await removeCopies(dir, await scanDirectory(dir, MB), nodeFileSystem);
    return names();
  };
  const first = wal.subarray(0, MB);
  store(`${FIRST}.partial`, first);
  writeFileSync(join(dir, `${FIRST}.gz`), gzipSync(first));
  // It may be what is being received yet.
  expect(await copies()).toEqual([`${FIRST}.gz`, `${FIRST}.partial`]);
  store(`${SECOND}.partial`, wal.subarray(MB));
  expect(await copies()).toEqual([`${FIRST}.gz`, `${SECOND}.partial`]);
  const other = Buffer.from(first);
  other[MB - 1] = (other[MB - 1] ?? 0) ^ 1;
  store(`${FIRST}.partial`, other);
  expect(await copies()).toContain(`${FIRST}.partial`);
  writeFileSync(join(dir, `${FIRST}.partial`), first.subarray(0, MB - 8192));
  expect(await copies()).toContain(`${FIRST}.partial`);
});

it('removes it only when the complete one is durable', async () => {
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  writeFileSync(join(dir, `${FIRST}.gz`), gzipSync(wal.subarray(0, MB)));
  store(`${SECOND}.partial`, wal.subarray(MB));
  const { fs, log } = faultyFileSystem();
  await removeCopies(dir, await scanDirectory(dir, MB), fs);
  expect(log.filter((l) => /^(fsync|unlink)/.test(l))).toEqual([
    'fsync',
    'fsync',
    `unlink ${FIRST}.partial`,
  ]);
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  const failing = faultyFileSystem(({ op }) => (op === 'fsync' ? { errno: 'EIO' } : undefined));
  await expect(removeCopies(dir, await scanDirectory(dir, MB), failing.fs)).rejects.toThrow(
    FsyncError,
  );
  expect(existsSync(join(dir, `${FIRST}.partial`))).toBe(true);
});

/** The start that is chosen when the server's slot stands at `restartLsn`. */
async function startAfter(restartLsn: bigint, forkedAt?: bigint, refused?: Refusal) {
  const connection = {
    serverVersion: 180000,
    readReplicationSlot: async () => ({ restartLsn, restartTimeline: 1 }),
  } as unknown as ReplicationConnection;
  const server: ServerState = {
    segmentSize: MB,
    systemId: 77n,
    fileMode: 0o600,
    timeline: forkedAt ? 2 : 1,
    flushLsn: (END + 500n) as Lsn,
    history: forkedAt
      ? parseTimelineHistory(2, `1\t${formatLsn(forkedAt as Lsn)}\tx\n`)
      : rootHistory(1),
    historyFile: undefined,
  };
  const { archive, warnings } = await openDirectory(connection, server, refused);
  expect(warnings).toEqual([]);
  await archive.close();
  return archive.start;
}

async function openDirectory(
  connection: ReplicationConnection,
  server: ServerState,
  refused?: Refusal,
) {
  const warnings: string[] = [];
  const archive = await ReceivingDirectory.open(
    { directory: dir, slot: 'wk' },
    connection,
    server,
    {
      removed: new RemovedWal(),
      slotInvalid: false,
      refused,
      warn: (_, message) => warnings.push(message),
    },
  );
  return { archive, warnings };
}

it('finishes the newest too, if all of it was acknowledged', async () => {
  // The server may have removed it: it would be asked for in vain.
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  expect(await startAfter(END)).toMatchObject({ lsn: END, timeline: 1, reason: 'local' });
  expect(names()).toEqual([FIRST]);
});

it('finishes the newest also where a stop left it compressed', async () => {
  writeFileSync(join(dir, `${FIRST}.gz.partial`), gzipSync(wal.subarray(0, MB)));
  expect(await startAfter(END)).toMatchObject({ lsn: END, timeline: 1 });
  expect(readdirSync(dir).filter((name) => !name.startsWith('.'))).toEqual([FIRST]);
});

it.each([
  ['not all of it was acknowledged', wal.subarray(0, MB), END - 1n, undefined],
  ['the slot is not the one that it was', wal.subarray(0, MB), END + 1n, undefined],
  [
    'it is damaged',
    Buffer.concat([wal.subarray(0, MB - 9000), Buffer.alloc(9000)]),
    END,
    undefined,
  ],
  ['a timeline forks off in it', wal.subarray(0, MB), END, END - 500n],
])('asks for the newest again if %s', async (_, bytes, restartLsn, forkedAt) => {
  store(`${FIRST}.partial`, bytes);
  expect((await startAfter(restartLsn, forkedAt)).lsn).toBe(END - BigInt(MB));
  expect(readdirSync(dir)).toContain(`${FIRST}.partial`);
});

it('begins with a segment that lacks its name, though WAL was refused behind it', async () => {
  store(`${FIRST}.partial`, wal.subarray(0, MB));
  // The rest of the record that goes on came damaged.
  const rest = Buffer.from(wal.subarray(MB));
  rest[1000] = rest[1000]! ^ 1;
  store(`${SECOND}.partial`, rest);
  const verifiedEnd = (END + 50_000n) as Lsn;
  const error = new CorruptWalError('WAL record has a wrong checksum', { lsn: verifiedEnd });
  const refused = { timeline: 1, streamed: 1, verifiedEnd, end: (END + 90_000n) as Lsn, error };
  const { lsn } = await startAfter(END - 1000n, undefined, refused);
  expect(lsn).toBe(BigInt(5 * MB));
});
