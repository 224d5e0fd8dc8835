import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, PROGRAMS, receive, writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const VICTIM = 'what is here stays';

/** A victim outside, and a directory with a link to it, or something else, under `name`. */
function plant(directory: string, name: string, kind: string): string {
  const victim = join(scratchDir('victim'), 'file');
  writeFileSync(victim, VICTIM);
  const path = join(directory, name);
  if (kind === 'link') symlinkSync(victim, path);
  else if (kind === 'dangling link') symlinkSync(join(victim, '..', 'new'), path);
  else if (kind === 'fifo') execFileSync('mkfifo', [path]);
  else mkdirSync(path);
  return victim;
}

function expectUntouched(victim: string): void {
  expect(readFileSync(victim, 'utf8')).toBe(VICTIM);
  expect(readdirSync(join(victim, '..'))).toEqual(['file']);
}

test.each(PROGRAMS)('%s writes through nothing that lies in its directory', async (program) => {
  const server = keep(await PostgresServer.create({ major: 18 }));
  // Where WAL itself is to be written, nothing else may lie: it stops and says so.
  for (const kind of ['link', 'dangling link', 'fifo', 'directory']) {
    const directory = archiveDirectory();
    const segment = await server.switchWal().then(() => server.currentSegment());
    const victim = plant(directory, `${segment}.partial`, kind);
    const run = keep(receive(directory, server.conninfo(), ['-n'], { program }));
    await writeWal(server, 10_000);
    const { code } = await run.exit;
    expect([kind, code]).toEqual([kind, 1]);
    expect(run.stderr).toContain(`"${segment}.partial" is not a regular file, skipping`);
    expect(run.stderr).toMatch(/error: could not (open|read)/);
    expectUntouched(victim);
  }

  // Everything else is replaced, or moved out of the way, and it goes on.
  const own = ['.walkeep-ledger.tmp', '.walkeep-new', '.walkeep-spare', '.SEGMENT.replaced'];
  for (const [kind, planted] of [
    ['link', own],
    ['link', ['SEGMENT', '.SEGMENT.replaced']],
    // In place of the segment it would stand for WAL that nobody can see now, see below.
    ['dangling link', own],
    ['fifo', ['SEGMENT', ...own]],
  ] as const) {
    const directory = archiveDirectory();
    const segment = await server.switchWal().then(() => server.currentSegment());
    const names = planted.map((name) => name.replace('SEGMENT', segment));
    const victims = names.map((name) => plant(directory, name, kind));
    // A directory that is itself a link is the operator's choice.
    const link = join(scratchDir('link'), 'archive');
    symlinkSync(directory, link);
    const run = keep(receive(link, server.conninfo(), [], { program }));
    await run.waitForOutput(/starting log streaming/);
    await writeWal(server, 2_200_000);
    await waitFor(() => existsSync(join(directory, segment)), { what: 'the segment' });
    await waitFor(() => lstatSync(join(directory, segment)).isFile(), { what: 'the segment' });
    const there = readFileSync(join(server.dataDir, 'pg_wal', segment));
    expect(readFileSync(join(directory, segment)).equals(there)).toBe(true);
    expect(await run.stop()).toEqual({ code: 0, signal: null });
    for (const victim of victims) expectUntouched(victim);
    for (const name of readdirSync(directory)) {
      const regular = lstatSync(join(directory, name)).isFile();
      // What was planted there, and what was moved out of the way.
      expect([name, regular]).toEqual([name, !name.startsWith(`.${segment}.replaced`)]);
    }
    expect(readlinkSync(link)).toBe(directory);
    const verify = keep(runCli(['verify', directory]));
    expect((await verify.exit).code).toBe(0);
  }
});

test.each(PROGRAMS)('%s goes on behind WAL that lies on another disk', async (program) => {
  const server = keep(await PostgresServer.create({ major: 18 }));
  const directory = archiveDirectory();
  const first = keep(receive(directory, server.conninfo(), [], { program }));
  await first.waitForOutput(/starting log streaming/);
  const name = await server.switchWal();
  await waitFor(() => existsSync(join(directory, name)), { what: 'the segment' });
  await first.stop();
  const disk = join(scratchDir('disk'), 'mounted');
  mkdirSync(disk);
  for (const file of readdirSync(directory)) {
    if (file.startsWith('.')) rmSync(join(directory, file));
    else renameSync(join(directory, file), join(disk, file));
  }
  symlinkSync(join(disk, name), join(directory, name));
  const run = keep(receive(directory, server.conninfo(), [], { program }));
  const [started] = await run.waitForOutput(/starting log streaming at .*$/m);
  const next = await server.switchWal();
  await waitFor(() => existsSync(join(directory, next)), { what: 'the next segment' });
  expect(await run.stop()).toEqual({ code: 0, signal: null });
  expect(run.stderr).not.toContain('warning');
  expect(lstatSync(join(directory, name)).isSymbolicLink()).toBe(true);
  expect(readdirSync(directory).filter((file) => file.startsWith(`.${name}`))).toEqual([]);
  const verify = keep(runCli(['verify', directory]));
  expect([started, (await verify.exit).code]).toEqual([started, 0]);

  // Where it is the newest, and its disk is away, nothing tells where to go on.
  for (const file of readdirSync(directory)) if (file !== name) rmSync(join(directory, file));
  renameSync(disk, `${disk}-not`);
  const refused = keep(receive(directory, server.conninfo(), ['-n'], { program }));
  expect((await refused.exit).code).toBe(1);
  expect(refused.stderr).toContain(`error: could not stat file "${join(directory, name)}"`);
  expect(readdirSync(directory).filter((file) => !file.startsWith('.'))).toEqual([name]);
});

test('a ledger or lock that is no file stops the receiver, it does not hang', async () => {
  const server = keep(await PostgresServer.create({ major: 18 }));
  for (const [name, kinds] of [
    ['.walkeep-ledger', ['fifo', 'link', 'directory']],
    ['.walkeep-lock', ['fifo', 'link', 'dangling link', 'directory']],
  ] as const) {
    for (const kind of kinds) {
      const directory = archiveDirectory();
      const victim = plant(directory, name, kind);
      const run = keep(receive(directory, server.conninfo(), ['-n']));
      expect([name, kind, (await run.exit).code]).toEqual([name, kind, 1]);
      expect(run.stderr).toContain(name);
      expectUntouched(victim);
      expect(existsSync(join(directory, `${await server.currentSegment()}.partial`))).toBe(false);
    }
  }
});
