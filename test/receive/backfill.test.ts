import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { Ledger, type LedgerEntry, readLedger } from '../../src/archive/ledger.js';
import { BackfillError, WalRemovedError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import type { WalReceiverOptions } from '../../src/receive/options.js';
import { WalReceiver } from '../../src/receive/receiver.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { disposer } from '../support/cleanup.js';
import { scratchDir } from '../support/scratch.js';
import { backend, type ScriptedConnection, ScriptedServer } from '../support/scripted-server.js';
import { waitFor } from '../support/wait.js';
import { makeWal } from '../wal/synthetic.js';

const MB = 1024 * 1024;
const keep = disposer();
const records = (fill: number, length = 3500) =>
  Array.from({ length }, (_, n) => ({ body: Buffer.alloc(3001, n + fill) }));
/** Segments 4 to 13; each but the first begins inside a record. */
const wal = makeWal(records(1), { start: BigInt(4 * MB) });
const NEWEST = 13;
/** Another server's: the same up to the middle of segment 7. */
const parted = wal.lsns.filter((lsn) => lsn < BigInt(7 * MB + MB / 2)).length;
const clone = makeWal(
  records(1).map((record, n) => (n < parted ? record : { body: Buffer.alloc(3001, n + 3) })),
  { start: wal.start },
);
const foreign = makeWal(records(1), { start: wal.start, systemId: 78n });

const name = (n: number, timeline = 1) => segmentFileName(timeline, BigInt(n), MB);
const segment = (n: number, from = wal) => from.bytes.subarray((n - 4) * MB, (n - 3) * MB);
const lsn = (n: number) => BigInt(n * MB) as Lsn;

let directory: string;
let other: string;
beforeEach(() => {
  directory = scratchDir('own');
  other = scratchDir('other');
});

function put(place: string, from: number, to: number, of = wal): void {
  for (let n = from; n <= to; n++) writeFileSync(join(place, name(n)), segment(n, of));
}

/** A ledger that says that segments up to `to` were received. */
async function note(place: string, from: number, to: number, ...more: LedgerEntry[]) {
  const ledger = (await Ledger.open(place, { create: true })) as Ledger;
  await ledger.append(
    { type: 'open', systemId: 77n, segmentSize: MB, version: '0' },
    { type: 'timeline', timeline: 1, start: lsn(from), why: 'first start' },
    { type: 'complete', lsn: lsn(to + 1), timeline: 1 },
    ...more,
  );
  await ledger.close();
}

/** Serves the WAL from segment `oldest` on; older segments it has removed. */
function serve(
  oldest: number,
  flushed: number,
  of: typeof wal,
  identity: object,
): Promise<ScriptedServer> {
  return ScriptedServer.listen(async (c: ScriptedConnection) => {
    const flushLsn = lsn(flushed);
    await c.accept();
    const start = await c.serve({ systemId: '77', segmentSizeMb: 1, flushLsn, ...identity });
    if (start.lsn < lsn(oldest)) {
      const file = name(Number(start.lsn) / MB, start.timeline);
      const text = `requested WAL segment ${file} has already been removed`;
      c.send(backend.errorResponse('58P01', text), backend.readyForQuery());
      return;
    }
    c.send(backend.copyBoth());
    for (let at = Number(start.lsn); at < NEWEST * MB; at += 100_000) {
      const to = Math.min(NEWEST * MB, at + 100_000);
      c.send(backend.xlogData(BigInt(at), of.bytes.subarray(at - 4 * MB, to - 4 * MB)));
    }
    await c.nextOf('c').catch(() => {});
    c.send(backend.copyDone());
    c.close();
  });
}

interface Seen {
  warnings: string[];
  errors: string[];
  taken: string[];
  started: bigint[];
}

/** Receives until `until` holds, and ends; or until it fails. */
async function receive(
  oldest: number,
  until: (seen: Seen) => boolean | Promise<boolean>,
  options: Partial<WalReceiverOptions> = {},
  { flushed = NEWEST, of = wal, identity = {} } = {},
): Promise<Seen & { failure: unknown }> {
  const server = keep(await serve(oldest, flushed, of, identity));
  const receiver = new WalReceiver({
    connection: server.conninfo({ sslmode: 'disable' }),
    ...{ directory, synchronous: true, checkSyncStandby: false, retryDelay: 20 },
    backfill: { places: [other] },
    ...options,
  });
  const seen: Seen = { warnings: [], errors: [], taken: [], started: [] };
  receiver.on('warning', ({ code, message }) => seen.warnings.push(`${code}: ${message}`));
  receiver.on('disconnect', ({ error }) => seen.errors.push(error.code));
  receiver.on('backfill', ({ name: taken }) => seen.taken.push(taken));
  receiver.on('start', (at) => seen.started.push(at.lsn));
  const stop = new AbortController();
  let failure: unknown;
  let ended = false;
  const run = receiver
    .run(stop.signal)
    .catch((e) => {
      failure = e;
    })
    .finally(() => {
      ended = true;
    });
  try {
    await waitFor(async () => ended || (await until(seen)), { what: 'the receiver' });
  } finally {
    stop.abort();
    await run;
  }
  return { ...seen, failure };
}

const isHere = (n: number) => existsSync(join(directory, name(n)));
const upToDate = () => isHere(NEWEST - 1);
const OLDER = '.walkeep-backfill-older';
/** All that is older was brought, from segment 4 on. */
const hasOlder = () => isHere(4) && !existsSync(join(directory, OLDER));

/** All of these segments are here, and nothing that is not sound. */
async function isWhole(from: number, to = NEWEST - 1): Promise<void> {
  for (let n = from; n <= to; n++) {
    expect(readFileSync(join(directory, name(n))).equals(segment(n)), name(n)).toBe(true);
  }
  expect(isHere(from - 1)).toBe(false);
  const { findings } = await verifyArchive(directory);
  expect(findings.filter((f) => f.severity !== 'info')).toEqual([]);
  // Nothing is left of what was on its way.
  expect(readdirSync(directory).filter((n) => n.startsWith('.walkeep-backfill'))).toEqual([]);
}

describe('what the server has removed', () => {
  it('is taken from the other archive before the stream goes on', async () => {
    put(directory, 5, 6);
    await note(directory, 5, 6);
    put(other, 4, 11);
    const { taken, errors, started, warnings, failure } = await receive(10, upToDate);
    expect(failure).toBeUndefined();
    expect(warnings).toEqual([]);
    expect(errors).toEqual(['WK_WAL_REMOVED']);
    expect(taken).toEqual([7, 8, 9, 10, 11].map((n) => name(n)));
    expect(started).toEqual([lsn(7), lsn(12)]);
    await isWhole(5);
    expect(await readLedger(directory)).toMatchObject({ end: lsn(NEWEST), gaps: [] });
  });

  it('counts as held as soon as it is here', async () => {
    put(directory, 5, 6);
    await note(directory, 5, 6);
    put(other, 6, 8);
    const { failure, taken } = await receive(10, () => false);
    expect(failure).toBeInstanceOf(WalRemovedError);
    expect(taken).toEqual([name(7), name(8)]);
    expect(await readLedger(directory)).toMatchObject({ end: lsn(9), completeLsn: lsn(9) });
    await isWhole(5, 8);
  });

  it('is taken where the directory was emptied', async () => {
    await note(directory, 5, 6);
    put(other, 4, 11);
    const { taken, failure } = await receive(10, upToDate);
    expect(failure).toBeUndefined();
    expect(taken).toEqual([7, 8, 9, 10, 11].map((n) => name(n)));
    await isWhole(7);
  });

  it('takes the place of what was begun of it here', async () => {
    put(directory, 5, 6);
    const partial = join(directory, `${name(7)}.partial`);
    writeFileSync(partial, Buffer.concat([segment(7).subarray(0, 300_000)], MB));
    await note(directory, 5, 6, { type: 'flushed', lsn: (lsn(7) + 300_000n) as Lsn, timeline: 1 });
    put(other, 4, 11);
    const { failure } = await receive(10, upToDate);
    expect(failure).toBeUndefined();
    await isWhole(5);
  });

  it('is taken although a gap would be accepted', async () => {
    put(directory, 5, 6);
    await note(directory, 5, 6);
    put(other, 6, 10);
    const { failure } = await receive(10, upToDate, { acceptGap: true });
    expect(failure).toBeUndefined();
    await isWhole(5);
    expect((await readLedger(directory))?.gaps).toEqual([]);
  });

  it('is gone over if nobody has it and that is accepted', async () => {
    put(directory, 5, 6);
    await note(directory, 5, 6);
    put(other, 4, 5);
    const { failure, taken } = await receive(10, upToDate, { acceptGap: true }, { flushed: 11 });
    expect(failure).toBeUndefined();
    expect(taken).toEqual([]);
    const gap = { from: lsn(7), to: lsn(11), why: 'accepted' };
    expect((await readLedger(directory))?.gaps).toEqual([expect.objectContaining(gap)]);
  });

  it('is waited for while the other archive cannot be asked', async () => {
    put(directory, 5, 6);
    await note(directory, 5, 6);
    put(other, 4, 11);
    const away = `${other}-away`;
    renameSync(other, away);
    const { errors, warnings, failure } = await receive(10, ({ errors: seen }) => {
      const asked = seen.filter((code) => code === 'WK_BACKFILL').length;
      if (asked > 2 && existsSync(away)) renameSync(away, other);
      return upToDate();
    });
    expect(failure).toBeUndefined();
    expect(errors.filter((code) => code === 'WK_BACKFILL').length).toBeGreaterThan(2);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^WK_BACKFILL: .* could not open directory/);
    await isWhole(5);
  });

  it('ends with the reason where nothing is tried again', async () => {
    put(directory, 5, 6);
    await note(directory, 5, 6);
    rmSync(other, { recursive: true });
    const { failure } = await receive(10, () => false, { reconnect: false });
    expect(failure).toBeInstanceOf(BackfillError);
  });
});

describe('what must not be taken', () => {
  beforeEach(async () => {
    put(directory, 5, 6);
    await note(directory, 5, 6);
  });

  async function isRefused(pattern: RegExp, last = 6): Promise<void> {
    const { failure, warnings } = await receive(10, () => false);
    expect(failure).toBeInstanceOf(WalRemovedError);
    expect(warnings.join('\n')).toMatch(pattern);
    await isWhole(5, last);
  }

  it('is WAL of another cluster', async () => {
    put(other, 4, 11, foreign);
    await isRefused(/another cluster/);
  });

  it('is an archive whose ledger names another cluster', async () => {
    put(other, 4, 11);
    const ledger = (await Ledger.open(other, { create: true })) as Ledger;
    await ledger.append({ type: 'open', systemId: 78n, segmentSize: MB, version: '0' });
    await ledger.close();
    await isRefused(/another cluster/);
  });

  it('is what another server wrote under the same names', async () => {
    // It parted from ours before what both have.
    rmSync(join(directory, name(6)));
    put(directory, 6, 7);
    await note(directory, 5, 7);
    put(other, 4, 11, clone);
    await isRefused(/differs from/, 7);
  });

  it('is damaged WAL', async () => {
    put(other, 4, 11);
    const damaged = Buffer.from(segment(8));
    damaged[500_000]! ^= 1;
    writeFileSync(join(other, name(8)), damaged);
    await isRefused(/is damaged/, 7);
  });

  it('contradicts what was acknowledged', async () => {
    const begun = Buffer.concat([segment(7).subarray(0, 900_000)], MB);
    writeFileSync(join(directory, `${name(7)}.partial`), begun);
    put(other, 7, 11, clone);
    const { failure, warnings } = await receive(10, () => false);
    expect(failure).toBeInstanceOf(WalRemovedError);
    expect(warnings.join('\n')).toMatch(/differs from/);
    expect(isHere(7)).toBe(false);
    expect(readFileSync(join(directory, `${name(7)}.partial`)).equals(begun)).toBe(true);
  });
});

describe('what is missing inside or before', () => {
  it('is filled while the stream goes on', async () => {
    put(directory, 5, 5);
    put(directory, 8, 9);
    await note(directory, 5, 9);
    put(other, 4, 9);
    const { failure, taken, errors } = await receive(5, () => isHere(6) && isHere(7) && upToDate());
    expect(failure).toBeUndefined();
    expect(errors).toEqual([]);
    expect(taken).toEqual([name(7), name(6)]);
    await isWhole(5);
  });

  it('is filled around what the other one lacks as well', async () => {
    put(directory, 5, 5);
    put(directory, 9, 9);
    await note(directory, 5, 9);
    put(other, 4, 9);
    rmSync(join(other, name(7)));
    const { taken } = await receive(5, () => isHere(6) && isHere(8) && upToDate());
    expect(taken).toEqual([name(8), name(6)]);
    expect(isHere(7)).toBe(false);
  });

  it('is not taken from an archive that has other WAL where both have some', async () => {
    put(directory, 5, 5);
    put(directory, 8, 9);
    await note(directory, 5, 9);
    put(other, 4, 9, clone);
    const { warnings } = await receive(5, ({ warnings: w }) => upToDate() && w.length > 0);
    expect(warnings.join()).toMatch(/WK_BACKFILL: .*differs from/);
    expect(isHere(6) || isHere(7)).toBe(false);
  });

  it('fills a gap that was accepted', async () => {
    put(directory, 5, 5);
    put(directory, 8, 9);
    const gap = { type: 'gap' as const, from: lsn(6), to: lsn(8), timeline: 1, why: 'accepted' };
    await note(directory, 5, 9, gap);
    put(other, 4, 9);
    await receive(5, () => isHere(6) && isHere(7) && upToDate());
    await isWhole(5);
  });

  it('is all that the other one has where the directory was empty', async () => {
    put(other, 4, 11);
    const { failure, started } = await receive(
      10,
      () => upToDate() && hasOlder(),
      {},
      { flushed: 11 },
    );
    expect(failure).toBeUndefined();
    expect(started).toEqual([lsn(11)]);
    await isWhole(4);
  });

  it('is all that is older, also when the receiver was killed on its way', async () => {
    put(directory, 8, 11);
    await note(directory, 10, 11);
    writeFileSync(join(directory, OLDER), '');
    put(other, 4, 11);
    const { failure, taken } = await receive(10, () => hasOlder() && upToDate());
    expect(failure).toBeUndefined();
    expect(taken).toEqual([7, 6, 5, 4].map((n) => name(n)));
    await isWhole(4);
  });

  it('waits for an archive that is yet to begin', async () => {
    let begun = false;
    const { failure } = await receive(
      10,
      async () => {
        if (upToDate() && !begun) put(other, 4, 12);
        begun ||= upToDate();
        return hasOlder();
      },
      { backfill: { places: [other], interval: 50 } },
      { flushed: 11 },
    );
    expect(failure).toBeUndefined();
    await isWhole(4);
  });

  it('does not come back once it was removed', async () => {
    put(other, 4, 11);
    await receive(10, () => upToDate() && hasOlder(), {}, { flushed: 11 });
    for (const n of [4, 5, 6]) rmSync(join(directory, name(n)));
    rmSync(join(directory, name(9)));
    // A hole is filled: what is older would be taken in the same look.
    const { failure, taken } = await receive(10, () => isHere(9));
    expect(failure).toBeUndefined();
    expect(taken).toEqual([name(9)]);
    await isWhole(7);
  });
});

describe('over a promotion', () => {
  /** Timeline 2 begins within segment 8. */
  const FORK = 8 * MB + 3 * 8192 + 1000;
  const forked = makeWal(records(1), {
    start: wal.start,
    timelineOf: (address) => (address < FORK ? 1 : 2),
  });
  const history = (fork: number) => `1\t0/${fork.toString(16).toUpperCase()}\tno reason\n`;
  const server = {
    of: forked,
    identity: { timeline: 2, histories: { 2: history(FORK) } },
  };

  function putForked(place: string, from: number, to: number): void {
    put(place, from, Math.min(to, 7), forked);
    for (let n = Math.max(from, 8); n <= to; n++) {
      writeFileSync(join(place, name(n, 2)), segment(n, forked));
    }
  }

  beforeEach(async () => {
    put(directory, 5, 6, forked);
    await note(directory, 5, 6);
    putForked(other, 4, 10);
  });
  const isUpToDate = () => existsSync(join(directory, name(NEWEST - 1, 2)));

  it('takes the rest of the old timeline, and the new one', async () => {
    writeFileSync(join(other, '00000002.history'), history(FORK));
    const { failure, warnings, taken, started } = await receive(10, isUpToDate, {}, server);
    expect(failure).toBeUndefined();
    expect(warnings).toEqual([]);
    expect(taken).toEqual([name(7), ...[8, 9, 10].map((n) => name(n, 2))]);
    expect(started.at(-1)).toBe(lsn(11));
    const { findings } = await verifyArchive(directory);
    expect(findings.filter((f) => f.severity !== 'info')).toEqual([]);
    expect(await readLedger(directory)).toMatchObject({ timeline: 2, end: lsn(NEWEST) });
    expect(readFileSync(join(directory, '00000002.history'), 'latin1')).toBe(history(FORK));
  });

  it('takes what is older from the timelines before as well', async () => {
    for (const file of readdirSync(directory)) rmSync(join(directory, file));
    putForked(other, 4, 11);
    writeFileSync(join(other, '00000002.history'), history(FORK));
    const until = () => isUpToDate() && hasOlder();
    const { failure, warnings } = await receive(10, until, {}, { ...server, flushed: 11 });
    expect(failure).toBeUndefined();
    expect(warnings).toEqual([]);
    for (const n of [4, 5, 6, 7]) expect(isHere(n)).toBe(true);
    for (const n of [8, 9, 10]) expect(existsSync(join(directory, name(n, 2)))).toBe(true);
    const { findings } = await verifyArchive(directory);
    expect(findings.filter((f) => f.severity !== 'info')).toEqual([]);
  });

  it('takes nothing of a timeline that another server made', async () => {
    writeFileSync(join(other, '00000002.history'), history(FORK + 8192));
    const { failure, warnings, taken } = await receive(10, () => false, {}, server);
    expect(failure).toBeInstanceOf(WalRemovedError);
    expect(taken).toEqual([]);
    expect(warnings.join()).toMatch(/their histories differ/);
  });

  it('takes nothing of a timeline whose history is not there', async () => {
    const { failure, taken } = await receive(10, () => false, {}, server);
    expect(failure).toBeInstanceOf(WalRemovedError);
    expect(taken).toEqual([name(7)]);
  });

  it('takes nothing that lies behind the fork on the old one', async () => {
    put(other, 8, 10, forked);
    for (const n of [8, 9, 10]) rmSync(join(other, name(n, 2)));
    writeFileSync(join(other, '00000002.history'), history(FORK));
    const { failure, taken } = await receive(10, () => false, {}, server);
    expect(failure).toBeInstanceOf(WalRemovedError);
    expect(taken).toEqual([name(7)]);
  });

  it("brings the histories of timelines before the server's own", async () => {
    const last = 10 * MB + 9000;
    const all = `${history(FORK)}2\t0/${last.toString(16).toUpperCase()}\tno reason\n`;
    const timelineOf = (address: bigint) => (address < FORK ? 1 : address < last ? 2 : 3);
    const later = {
      of: makeWal(records(1), { start: wal.start, timelineOf }),
      identity: { timeline: 3, histories: { 3: all } },
    };
    writeFileSync(join(other, '00000002.history'), history(FORK));
    writeFileSync(join(other, '00000003.history'), all);
    rmSync(join(other, name(10, 2)));
    writeFileSync(join(other, name(10, 3)), segment(10, later.of));
    const until = () => existsSync(join(directory, name(NEWEST - 1, 3)));
    const { failure, taken } = await receive(11, until, {}, later);
    expect(failure).toBeUndefined();
    expect(taken).toEqual([name(7), name(8, 2), name(9, 2), name(10, 3)]);
    expect(readFileSync(join(directory, '00000002.history'), 'latin1')).toBe(history(FORK));
    expect(readFileSync(join(directory, '00000003.history'), 'latin1')).toBe(all);
    const { findings } = await verifyArchive(directory);
    expect(findings.filter((f) => f.severity !== 'info')).toEqual([]);
  });
});
