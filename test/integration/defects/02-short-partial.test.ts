import { execFileSync } from 'node:child_process';
import { rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { disposer } from '../../support/cleanup.js';
import { MAJORS, PostgresServer } from '../../support/postgres.js';
import {
  archiveDirectory,
  holds,
  PROGRAMS,
  receive,
  waitEqual,
  writeWal,
} from '../../support/receiving.js';
import { waitFor } from '../../support/wait.js';

const keep = disposer();
const major = MAJORS.includes(18) ? 18 : MAJORS.at(-1)!;
const MB = 1024 * 1024;

/** A small file system of its own; undefined where we may not mount one. */
function smallDisk(bytes: number): string | undefined {
  const dir = archiveDirectory();
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', dir], { stdio: 'pipe' });
  } catch {
    return undefined;
  }
  onTestFinished(() => void execFileSync('umount', ['-l', dir]));
  return dir;
}

describe.each(PROGRAMS)('%s', (program) => {
  test('extends a short partial without touching what is in it', async () => {
    const server = keep(await PostgresServer.create({ major, archive: true }));
    const directory = archiveDirectory();
    const first = keep(receive(directory, server.conninfo(), [], { program }));
    await first.waitForOutput(/starting log streaming/);
    await writeWal(server, 100_000);
    await waitEqual(directory, server);
    await first.stop();
    const [, name] = first.stderr.match(/not renaming "(\w+\.partial)"/) ?? [];
    const partial = join(directory, name as string);
    const kept = Number((await server.currentLsn()) % BigInt(MB));
    truncateSync(partial, kept);

    const second = keep(receive(directory, server.conninfo(), [], { program }));
    await second.waitForOutput(/starting log streaming/);
    await waitFor(() => statSync(partial).size === MB);
    await writeWal(server, 1_500_000);
    await waitEqual(directory, server);
    expect(await second.stop()).toEqual({ code: 0, signal: null });
    expect(second.stderr).not.toMatch(/error|lost acknowledged/);
  });

  test('goes on by itself when a full disk has space again', async ({ skip }) => {
    const directory = smallDisk(4 * MB);
    if (directory === undefined) return skip('no right to mount a tmpfs');
    const server = keep(await PostgresServer.create({ major, archive: true }));
    const filler = join(directory, '.filler');
    writeFileSync(filler, Buffer.alloc(2 * MB + MB / 2));
    const run = keep(receive(directory, server.conninfo(), ['-s', '1'], { program }));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 2_200_000);
    await run.waitForOutput(/error: .*No space left on device[\s\S]*to try again/);
    expect(run.running).toBe(true);
    const lsn = await server.currentLsn();
    expect(await holds(directory, server, lsn)).toBeDefined();
    rmSync(filler);
    await waitEqual(directory, server);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
  });
});
