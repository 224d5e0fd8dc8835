import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, type TestContext, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { firstDifference } from '../support/compare.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, content, holds, receive, waitEqual } from '../support/receiving.js';
import { findTool } from '../support/tools.js';
import { type WorkloadOptions, workload } from '../support/workload.js';

const keep = disposer();

/** Ways to receive; every segment size meets each of them on one of the majors. */
const MODES = [
  ['plain', []],
  ['-S slot', ['-S', 'slot']],
  ['-S slot --synchronous', ['-S', 'slot', '--synchronous']],
  ['-Z gzip', ['-Z', 'gzip:1']],
  ['-S slot -Z lz4', ['-S', 'slot', '-Z', 'lz4']],
] as const;

/** By megabytes of a segment: enough to fill small segments, and switches to end large ones. */
const WORK: Record<number, WorkloadOptions> = {
  // A message that is longer than a segment, too.
  1: { transactions: 6, switchEvery: 3, prepareEvery: 2, messageBytes: 1_100_000 },
  16: { transactions: 12, switchEvery: 4, prepareEvery: 5, messageBytes: 900_000 },
  64: { transactions: 12, switchEvery: 6, prepareEvery: 5, messageBytes: 900_000 },
};

const CELLS = MAJORS.flatMap((major, row) =>
  Object.keys(WORK).map((size, column) => ({
    major,
    size: Number(size),
    mode: MODES[(row + 2 * column) % MODES.length]!,
    transport: (row + column) % 2 === 0 ? 'unix' : 'TCP',
  })),
);

test.for(CELLS)('PostgreSQL $major, $size MB segments, $transport, $mode.0', receivesAll);

async function receivesAll(cell: (typeof CELLS)[number], context: TestContext): Promise<void> {
  const { major, size, transport, mode } = cell;
  if (mode[0].includes('lz4') && !findTool('lz4')) context.skip('the lz4 tool is not installed');
  const server = keep(
    await PostgresServer.create({ major: major as Major, segmentSizeMb: size, archive: true }),
  );
  await server.sql("SELECT pg_create_physical_replication_slot('slot', true)");
  const directory = archiveDirectory();
  const conninfo = server.conninfo(transport === 'unix' ? { host: server.socketDir } : {});

  // The second run goes on from the partial file of the first.
  for (let run = 1; run <= 2; run++) {
    const receiver = keep(receive(directory, conninfo, [...mode[1]]));
    await receiver.waitForOutput(/starting log streaming/);
    await workload(server, WORK[size]);
    // A switch was last: some more, for a partial file.
    await workload(server, { transactions: 2 });
    const lsn = await waitEqual(directory, server);
    expect(await receiver.stop()).toEqual({ code: 0, signal: null });
    // The stop may have compressed the partial file.
    expect(await holds(directory, server, lsn)).toBeUndefined();
  }
  await expectArchived(directory, server);
}

/** Every completed segment is the server's own archived copy, and nothing strange lies around. */
async function expectArchived(directory: string, server: PostgresServer): Promise<void> {
  const names = readdirSync(directory).sort();
  const complete = names.filter((name) => /^[0-9A-F]{24}(\.gz|\.lz4)?$/.test(name));
  expect(complete.length).toBeGreaterThanOrEqual(4);
  const others = names.filter((name) => !complete.includes(name));
  expect(others).toEqual([
    '.walkeep-ledger',
    expect.stringMatching(/^[0-9A-F]{24}(\.gz|\.lz4)?\.partial$/),
  ]);
  for (const name of complete) {
    const archived = readFileSync(await server.waitArchived(name.slice(0, 24)));
    const stored = content(join(directory, name));
    expect({ name, difference: firstDifference(stored, archived) }).toEqual({
      name,
      difference: -1,
    });
    expect(stored.length).toBe(server.segmentSize);
  }
}
