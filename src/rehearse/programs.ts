import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { TargetError } from '../errors.js';
import type { Owner } from '../restore/file-system.js';
import type { RehearsedServer } from './options.js';

const run = promisify(execFile);

export interface FindOptions {
  /** Look only here. */
  given?: string | undefined;
  /** Who is to run it. */
  owner?: Owner | undefined;
  path?: string | undefined;
}

/**
 * The server's program of a major version that the user can run.
 * @throws TargetError that says what was found instead
 */
export async function findServer(
  major: number,
  { given, owner, path = process.env.PATH ?? '' }: FindOptions = {},
): Promise<RehearsedServer> {
  const candidates = given === undefined ? await places(major, path) : [given];
  const others: string[] = [];
  for (const bin of new Set(candidates)) {
    const program = join(bin, 'postgres');
    if (!isExecutable(program)) continue;
    try {
      const { stdout } = await run(program, ['--version'], { cwd: '/', ...owner });
      const version = /(\d+)[.\w]*/.exec(stdout);
      if (version && Number(version[1]) === major) return { bin, version: version[0] };
      others.push(`"${bin}" has ${stdout.trim()}`);
    } catch (e) {
      const { stderr = '', message } = e as Error & { stderr?: string };
      others.push(`"${bin}": ${(stderr || message).trim().split('\n')[0]}`);
    }
  }
  const where = given === undefined ? '' : ` in "${given}"`;
  throw new TargetError(`there is no PostgreSQL ${major}${where} to rehearse with`, {
    ...(others.length === 0 ? {} : { detail: others.join('; ') }),
    hint: `Install the server's package of PostgreSQL ${major}, or name its programs with --pg-bin.`,
  });
}

/** Where distributions put it, besides what PATH leads to. */
async function places(major: number, path: string): Promise<string[]> {
  const found: string[] = [];
  const directories = path.split(delimiter).filter((one) => one.startsWith('/'));
  for (const directory of directories) {
    const config = join(directory, 'pg_config');
    if (!isExecutable(config)) continue;
    const { stdout } = await run(config, ['--bindir']).catch(() => ({ stdout: '' }));
    if (stdout.trim() !== '') found.push(stdout.trim());
  }
  return [
    ...directories,
    ...found,
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/usr/lib/postgresql${major}/bin`,
    `/usr/libexec/postgresql${major}`,
    `/usr/local/pgsql-${major}/bin`,
    '/usr/local/pgsql/bin',
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    `/usr/local/opt/postgresql@${major}/bin`,
    `/Applications/Postgres.app/Contents/Versions/${major}/bin`,
  ];
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
