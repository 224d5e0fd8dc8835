import { describe, expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../support/postgres.js';
import { signal } from '../support/processes.js';
import {
  archiveDirectory,
  type Program,
  receive,
  waitEqual,
  writeWal,
} from '../support/receiving.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const CASES: [Major, Program][] = [
  [15, 'walkeep'],
  [18, 'walkeep'],
  [18, 'pg_receivewal'],
];

/** A server with a slot, and a synchronous receiver of it that has caught up. */
async function streaming(major: Major, program: Program, proxied = false) {
  const server = keep(await PostgresServer.create({ major, archive: true }));
  await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
  const proxy = proxied ? keep(await TcpProxy.listen(server.port)) : undefined;
  const directory = archiveDirectory();
  const conninfo = (proxy ?? server).conninfo({ application_name: 'receiver' });
  const args = ['-S', 's', '--synchronous'];
  const run = keep(receive(directory, conninfo, args, { program }));
  await run.waitForOutput(/starting log streaming/);
  await writeWal(server, 300_000);
  await waitEqual(directory, server);
  return { server, proxy, directory, run, conninfo, args };
}

const starts = (text: string) => text.match(/starting log streaming/g)?.length ?? 0;

describe.each(CASES.filter(([major]) => MAJORS.includes(major)))(
  'PostgreSQL %i, %s',
  (major, program) => {
    test('goes on after a restart, a crash, a killed walsender', async () => {
      const { server, directory, run } = await streaming(major, program);
      const ends = ['crash', 'restart', 'walsender'] as const;
      // Each costs pg_receivewal's fixed delay of 5 s.
      for (const end of program === 'walkeep' ? ends : ends.slice(0, 1)) {
        const before = starts(run.stderr);
        await writeWal(server, 1_500_000);
        if (end === 'restart') await server.restart();
        if (end === 'crash') {
          await server.kill9();
          await server.start();
        }
        if (end === 'walsender') {
          // The postmaster then restarts everything: a crash of one backend.
          const [pid] = await server.walSenderPids();
          signal(pid as number, 'SIGKILL');
        }
        await waitFor(() => starts(run.stderr) > before, { what: `a stream after ${end}` });
        await waitFor(() => server.sql('SELECT 1'));
        await writeWal(server, 400_000);
        await waitEqual(directory, server);
      }
      expect(await run.stop()).toEqual({ code: 0, signal: null });
      expect(run.stderr).not.toMatch(/other bytes|gap/);
    });

    test('goes on after network cuts in the middle of messages', async () => {
      const { server, proxy, directory, run } = await streaming(major, program, true);
      const cuts = program === 'walkeep' ? [1, 77, 131_072, 300_001] : [200_001];
      for (const bytes of cuts) {
        const before = starts(run.stderr);
        proxy?.after(bytes, 'cut');
        await writeWal(server, 500_000);
        await waitFor(() => starts(run.stderr) > before, { what: `a stream after ${bytes}` });
        await waitEqual(directory, server);
      }
      expect(await run.stop('SIGTERM')).toEqual({ code: 0, signal: null });
    });

    test('waits for a slot that another receiver has', async () => {
      const { server, run, conninfo, args } = await streaming(major, program);
      const second = archiveDirectory();
      const waiting = keep(receive(second, conninfo, args, { program }));
      await waiting.waitForOutput(/replication slot "s" is active for PID \d+[\s\S]*to try again/);
      await run.stop();
      await waitFor(() => starts(waiting.stderr) >= 1);
      await writeWal(server, 1_200_000);
      await waitEqual(second, server);
      expect(await waiting.stop()).toEqual({ code: 0, signal: null });
    });
  },
);
