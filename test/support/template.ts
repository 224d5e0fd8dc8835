import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { binDir, type Major, packageVersion } from './binaries.js';
import { giveToServer, serverUser } from './scratch.js';

const run = promisify(execFile);

/** Where finished initdb results wait to be copied; keyed by all that shapes them. */
const TEMPLATES = join(tmpdir(), `walkeep-initdb-${process.getuid?.()}`);

/** initdb into `dir`, with our settings file included last. */
async function initdb(dir: string, major: Major, segmentMb: number, args: string[]): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  giveToServer(dir);
  await run(
    join(binDir(major), 'initdb'),
    ['-D', dir, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync'].concat(
      ['--no-instructions', `--wal-segsize=${segmentMb}`],
      args,
    ),
    { ...serverUser, cwd: '/', env: { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' } },
  );
  await appendFile(join(dir, 'postgresql.conf'), "\ninclude = 'walkeep.conf'\n");
}

/**
 * A new data directory at `dir`. All copies of one template have the same system identifier;
 * `fresh` (and any extra argument) runs initdb itself, for tests about another cluster.
 */
export async function createDataDirectory(
  dir: string,
  options: { major: Major; segmentSizeMb: number; fresh: boolean; initdbArgs: string[] },
): Promise<void> {
  const { major, segmentSizeMb, fresh, initdbArgs } = options;
  if (fresh || initdbArgs.length > 0) return initdb(dir, major, segmentSizeMb, initdbArgs);
  const template = join(TEMPLATES, `${packageVersion(major)}-${segmentSizeMb}`);
  if (!existsSync(template)) {
    await mkdir(TEMPLATES, { recursive: true, mode: 0o711 });
    const temporary = await mkdtemp(join(TEMPLATES, 'new-'));
    giveToServer(temporary);
    await initdb(temporary, major, segmentSizeMb, []);
    // Fails if another process was faster; its result is as good.
    await rename(temporary, template).catch((error) => {
      if (!existsSync(template)) throw error;
    });
    await rm(temporary, { recursive: true, force: true });
  }
  await run('cp', ['-a', template, dir]);
}
