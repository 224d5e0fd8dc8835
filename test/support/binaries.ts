import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { serverUser } from './scratch.js';

export type Major = 14 | 15 | 16 | 17 | 18;

const require = createRequire(import.meta.url);

/** The npm package of a major version, undefined where it is not installed (not linux x64). */
function packageDir(major: Major): string | undefined {
  try {
    return dirname(dirname(require.resolve(`pg${major}`)));
  } catch {
    return undefined;
  }
}

const ALL_MAJORS = [14, 15, 16, 17, 18] as const;

/** The majors that can be run here. */
export const MAJORS: readonly Major[] = ALL_MAJORS.filter(packageDir);

/** The others, whose cases tables of tests leave out. */
export const MISSING_MAJORS: readonly Major[] = ALL_MAJORS.filter((one) => !packageDir(one));

/**
 * The oldest and the newest, for tests of a minute a version whose parts others try on all of them.
 * WALKEEP_EVERY_MAJOR=1: all.
 */
export const OUTER_MAJORS: readonly Major[] = process.env.WALKEEP_EVERY_MAJOR
  ? MAJORS
  : MAJORS.filter((_, i) => i === 0 || i === MAJORS.length - 1);

/** The newest, for tests of what no version does its own way. WALKEEP_EVERY_MAJOR=1: all. */
export const NEWEST_MAJOR: readonly Major[] = process.env.WALKEEP_EVERY_MAJOR
  ? MAJORS
  : MAJORS.slice(-1);

/** Exact version of the package, for cache keys. */
export function packageVersion(major: Major): string {
  const dir = packageDir(major);
  if (!dir) throw new Error(`PostgreSQL ${major} is not installed (npm package pg${major})`);
  return JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')).version;
}

/** The links that the package's install script makes, missing after `npm ci --ignore-scripts`. */
function makeLinks(dir: string): void {
  const links: { source: string; target: string }[] = JSON.parse(
    readFileSync(join(dir, 'native/pg-symlinks.json'), 'utf8'),
  );
  for (const { source, target } of links) {
    const link = join(dir, target);
    if (existsSync(link)) continue;
    try {
      symlinkSync(relative(dirname(link), join(dir, source)), link);
    } catch (error) {
      // Another process was faster.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

const works = (dir: string) =>
  spawnSync(join(dir, 'native/bin/postgres'), ['--version'], serverUser).status === 0;

const binDirs = new Map<Major, string>();

/**
 * Directory of initdb and postgres. A checkout that the servers' user cannot read (below a 0700
 * home) or that we cannot write to is copied to the temporary directory, once a version.
 */
export function binDir(major: Major): string {
  const known = binDirs.get(major);
  if (known) return known;
  const version = packageVersion(major);
  let dir = packageDir(major) as string;
  if (!usable(dir)) {
    const copy = join(tmpdir(), `walkeep-postgres-${version}-${process.getuid?.()}`);
    if (!existsSync(copy)) {
      const temporary = mkdtempSync(`${copy}.`);
      const target = join(temporary, basename(copy));
      cpSync(dir, target, { recursive: true, verbatimSymlinks: true });
      try {
        renameSync(target, copy);
      } catch (error) {
        if (!existsSync(copy)) throw error;
      }
      rmSync(temporary, { recursive: true, force: true });
    }
    dir = copy;
    if (!usable(dir)) throw new Error(`PostgreSQL ${major} does not run here: ${dir}`);
  }
  const result = join(dir, 'native/bin');
  binDirs.set(major, result);
  return result;
}

function usable(dir: string): boolean {
  try {
    makeLinks(dir);
  } catch {
    // Read-only: fine if the links are there, which the trial shows.
  }
  return works(dir);
}
