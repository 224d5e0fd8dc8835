import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { formatLsn, type Lsn } from '../../../src/lsn.js';
import { disposer } from '../../support/cleanup.js';
import { MAJORS, type Major, PostgresServer } from '../../support/postgres.js';
import {
  archiveDirectory,
  content,
  holds,
  type Program,
  receive,
  waitEqual,
  writeWal,
} from '../../support/receiving.js';
import { TcpProxy } from '../../support/tcp-proxy.js';
import { findTool } from '../../support/tools.js';
import { waitFor } from '../../support/wait.js';

const keep = disposer();
const SUFFIX = { gzip: 'gz', lz4: 'lz4' } as const;
const CASES: ['gzip' | 'lz4', Major, Program][] = [
  ['gzip', 15, 'walkeep'],
  ['lz4', 18, 'walkeep'],
  ['gzip', 18, 'pg_receivewal'],
  ['lz4', 15, 'pg_receivewal'],
];
const RUNNABLE = CASES.filter(([method, major]) => MAJORS.includes(major) && findTool(method));

/** The only file of WAL in the directory, after a check with the format's own tool. */
function onlyPartial(directory: string, method: 'gzip' | 'lz4'): string {
  const names = readdirSync(directory).filter((name) => !name.startsWith('.'));
  expect(names).toEqual([expect.stringMatching(new RegExp(`\\.${SUFFIX[method]}\\.partial$`))]);
  const path = join(directory, names[0] as string);
  const type = method === 'gzip' ? ['-S', '.partial'] : [];
  execFileSync(findTool(method) as string, [...type, '-t', path], { stdio: 'pipe' });
  return path;
}

describe.each(RUNNABLE)('-Z %s, PostgreSQL %i, %s', (method, major, program) => {
  async function firstStream(): Promise<{ server: PostgresServer; lsn: Lsn; directory: string }> {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    // The whole test happens in one segment.
    await server.switchWal();
    const directory = archiveDirectory();
    const run = keep(receive(directory, server.conninfo(), ['-Z', method], { program }));
    await run.waitForOutput(/starting log streaming/);
    const lsn = await writeWal(server, 600_000);
    await waitFor(async () => !(await holds(directory, server, lsn)));
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    return { server, lsn, directory };
  }

  test('a shorter second stream leaves no garbage and loses nothing', async () => {
    const { server, lsn, directory } = await firstStream();
    const length = content(onlyPartial(directory, method)).length;
    // Ends after the first message of at most 128 kB.
    const early = (lsn & ~0xfffffn) + 50_000n;
    const args = ['-Z', method, '-E', formatLsn(early)];
    const short = keep(receive(directory, server.conninfo(), args, { program }));
    expect(await short.exit).toEqual({ code: 0, signal: null });
    expect(content(onlyPartial(directory, method)).length).toBeGreaterThanOrEqual(length);
    expect(await holds(directory, server, lsn)).toBeUndefined();

    const third = keep(receive(directory, server.conninfo(), ['-Z', method], { program }));
    await third.waitForOutput(/starting log streaming/);
    for (let i = 0; i < 2; i++) {
      await writeWal(server, 200_000);
      await server.waitArchived(await server.switchWal());
    }
    const finished = () => readdirSync(directory).filter((f) => f.endsWith(`.${SUFFIX[method]}`));
    const named = /^[0-9A-F]{24}/;
    await waitFor(() => finished().filter((f) => named.test(f)).length === 2);
    await waitEqual(directory, server);
    await third.stop();
    const complete = finished();
    expect(complete).toHaveLength(2);
    for (const file of complete) {
      const path = join(directory, file);
      execFileSync(findTool(method) as string, ['-t', path], { stdio: 'pipe' });
    }
  });

  test('kill -9 while the segment is received again loses no acknowledged byte', async () => {
    const { server, lsn, directory } = await firstStream();
    const proxy = keep(await TcpProxy.listen(server.port));
    for (const bytes of [0, 3_000, 130_000, 420_000]) {
      // The answers before the stream are less than 2 kB.
      proxy.after(2_000 + bytes, 'stall');
      const conninfo = proxy.conninfo({ sslmode: 'disable' });
      const again = keep(receive(directory, conninfo, ['-Z', method], { program }));
      await waitFor(() => proxy.stalled, { what: `${bytes} bytes` });
      await again.stop('SIGKILL');
      expect(await holds(directory, server, lsn), `after ${bytes} bytes`).toBeUndefined();
      proxy.cut();
      proxy.resume();
    }
    const last = keep(receive(directory, server.conninfo(), ['-Z', method], { program }));
    await last.waitForOutput(/starting log streaming/);
    await writeWal(server, 100_000);
    await waitEqual(directory, server);
    await last.stop();
    onlyPartial(directory, method);
  });
});
