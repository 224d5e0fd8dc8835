import { copyFileSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ALIVE_FILE, SPOOL_DIRECTORY } from '../../src/fetch/ahead.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import type { Lsn } from '../../src/lsn.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { sampleArchive, writeLedger as writeLedgerOf } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import { archiveOf, SEGMENT, SYSTEM_ID } from '../support/wal-archive.js';
import { makeWal } from '../wal/synthetic.js';

const keep = disposer();
// The fixture: timeline 2 leaves timeline 1 within segment 8.
const name = (n: number, timeline = 1) => `0000000${timeline}000000000000000${n}`;

test('a hole behind which a later timeline goes on is not taken for the end', async () => {
  const { dir, out, target } = archiveOf('promoted');
  // The server has what lies before the hole itself.
  for (const n of [6, 7]) renameSync(join(dir, name(n)), join(out, name(n)));
  copyFileSync(join(dir, '00000002.history'), join(out, '00000002.history'));
  const next = makeWal([{ body: Buffer.alloc(100, 1) }], {
    ...{ start: 0x900000n, timeline: 2, systemId: SYSTEM_ID },
  });
  rmSync(join(dir, `${name(8, 2)}.partial`));
  writeFileSync(join(dir, `${name(9, 2)}.partial`), Buffer.concat([next.bytes], SEGMENT));
  await expect(fetchFile({ places: [dir], name: name(8, 2), target })).rejects.toThrow(
    'behind the missing',
  );
});

test.each(['history only', 'an empty file'])(
  'a timeline of which there is %s is only just beginning',
  async (what) => {
    const { dir, target } = archiveOf('promoted');
    const partial = join(dir, `${name(8, 2)}.partial`);
    rmSync(partial);
    if (what !== 'history only') writeFileSync(partial, Buffer.alloc(SEGMENT));
    const request = { places: [dir], name: name(8, 2), target, standby: true };
    await expect(fetchFile(request)).rejects.toMatchObject({ retryable: true });
  },
);

/** Three segments, the last of them partial, all complete by the ledger. */
async function allComplete() {
  const a = sampleArchive(3);
  await writeLedgerOf(
    a.directory,
    { type: 'timeline', timeline: 1, start: a.start as Lsn, why: 'first start' },
    { type: 'complete', lsn: (a.start + 3n * 0x100000n) as Lsn, timeline: 1 },
  );
  return a;
}

test('a partial file of a segment that the ledger knows as complete is not served for it', async () => {
  const a = await allComplete();
  const target = join(scratchDir(), 'RECOVERYXLOG');
  const request = { places: [a.directory], name: (a.names[2] as string).slice(0, 24), target };
  await expect(fetchFile(request)).rejects.toMatchObject({ code: 'WK_CORRUPT_WAL' });
});

test('what is read ahead is of the archive’s cluster, though the server’s is not known', async () => {
  const a = sampleArchive(3);
  await writeLedgerOf(a.directory);
  const foreign = sampleArchive(3, { systemId: 99n });
  const [before, wanted] = a.names as [string, string];
  copyFileSync(join(foreign.directory, wanted), join(a.directory, wanted));
  const cwd = scratchDir();
  const fetch = async (segment: string) => {
    const args = ['fetch', '--prefetch=2', a.directory, segment, join(cwd, 'RECOVERYXLOG')];
    return (await keep(runCli(args, { cwd })).exit).code;
  };
  expect(await fetch(before)).toBe(0);
  await waitFor(() => existsSync(join(cwd, SPOOL_DIRECTORY, ALIVE_FILE)));
  // The reader has had its time at the latest of them.
  for (let i = 0; i < 5; i++) expect(await fetch(wanted)).toBe(202);
});

test.each([
  ['the archive begins with it', () => undefined],
  [
    'the one before is damaged there',
    (five: Buffer) => five.fill(7, SEGMENT - 6000, SEGMENT - 5000),
  ],
])('the rest of a record is judged by what the server has, if %s', async (_where, change) => {
  const records = Array.from({ length: 800 }, (_, i) => ({ body: Buffer.alloc(3000, i) }));
  const { bytes } = makeWal(records, { start: 0x500000n });
  const [directory, server] = [scratchDir('archive'), scratchDir()];
  const part = (i: number) => Buffer.from(bytes.subarray(i * SEGMENT, (i + 1) * SEGMENT));
  const five = part(0);
  if (change(five)) writeFileSync(join(directory, name(5)), five);
  writeFileSync(join(server, name(5)), part(0));
  const six = join(directory, name(6));
  writeFileSync(six, part(1));
  const request = { places: [directory], name: name(6), target: join(server, 'RECOVERYXLOG') };
  expect(await fetchFile(request)).toMatchObject({ found: true });
  const bad = part(1);
  bad[100] = bad[100]! ^ 1;
  writeFileSync(six, bad);
  await expect(fetchFile(request)).rejects.toMatchObject({ code: 'WK_CORRUPT_WAL' });
});

test('verify sees a partial file of a segment that the ledger knows as complete', async () => {
  const a = await allComplete();
  const { summary } = await verifyArchive(a.directory, { jobs: 1 });
  expect(summary.errors).toBeGreaterThan(0);
});
