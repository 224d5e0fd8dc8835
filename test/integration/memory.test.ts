import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, holds, receive } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();

/** Megabytes of backlog; memory must not depend on it. */
const BACKLOG = Number(process.env.WALKEEP_BACKLOG_MB ?? 512);
const LIMIT = 150;
const SEGMENT = 16;
const TIMEOUT = 60_000 + BACKLOG * 100;
const MODES: Record<string, string[]> = {
  plain: [],
  synchronous: ['--synchronous'],
  gzip: ['-Z', 'gzip'],
  lz4: ['-Z', 'lz4'],
};

/** Highest resident size that a process ever had, in megabytes. */
function peakMemory(pid: number): number {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!;
  return Number(kilobytes) / 1024;
}

describe.skipIf(MAJORS.length === 0)(`catching up ${BACKLOG} MB`, () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await PostgresServer.create({
      major: MAJORS.at(-1)!,
      segmentSizeMb: SEGMENT,
      settings: { max_wal_size: `${2 * BACKLOG}MB` },
    });
    const client = await server.client();
    for (const slot of Object.keys(MODES)) {
      await client.query('SELECT pg_create_physical_replication_slot($1, true)', [slot]);
    }
    for (let written = 0; written < BACKLOG; written += 8) {
      // Compressible as real WAL is, by and large.
      await client.query(
        `SELECT pg_logical_emit_message(true, 'fill', string_agg(repeat(md5(random()::text), 128), ''))
           FROM generate_series(1, 2048)`,
      );
    }
  }, TIMEOUT);
  afterAll(() => server?.destroy());

  test.each(Object.keys(MODES))(
    `%s keeps below ${LIMIT} MB`,
    async (mode) => {
      const directory = archiveDirectory();
      const began = performance.now();
      const run = keep(receive(directory, server.conninfo(), ['-S', mode, ...MODES[mode]!]));
      const lsn = await server.currentLsn();
      await waitFor(
        async () => {
          const finished = run.stderr.match(/finished segment/g)?.length ?? 0;
          if (finished < Math.floor(BACKLOG / SEGMENT)) return false;
          return (await holds(directory, server, lsn)) === undefined;
        },
        { what: 'the backlog to be stored', timeoutMs: TIMEOUT, intervalMs: 50 },
      );
      const seconds = (performance.now() - began) / 1000;
      const peak = peakMemory(run.pid);
      expect(await run.stop()).toEqual({ code: 0, signal: null });
      console.log(
        `${mode}: ${BACKLOG} MB in ${seconds.toFixed(1)} s, peak memory ${peak.toFixed(0)} MB`,
      );
      expect(peak).toBeLessThan(LIMIT);
    },
    TIMEOUT,
  );
});
