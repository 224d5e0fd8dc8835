import { basename, dirname, isAbsolute, join, relative } from 'node:path';
import type { OutsideFile } from '../../base/backup-record.js';

/** A configuration file from outside the data directory, and where it goes. */
export interface AdoptedFile {
  /** On the server. */
  from: string;
  /** Absent: the backup does not have its content. */
  object?: string | undefined;
  to: string;
}

/**
 * Where the configuration that a server had outside its data directory (as Debian's in
 * /etc/postgresql) goes: below one directory, as it lay around postgresql.conf.
 */
export function adoptedFiles(
  outside: readonly OutsideFile[],
  configDir: string,
  occupied: ReadonlySet<string> = new Set(),
): AdoptedFile[] {
  const main = mainFile(outside);
  const around = main ? dirname(main) : undefined;
  const taken = new Set<string>();
  return outside.flatMap(({ path, object, kind }) => {
    // Directories are made by themselves; certificates and keys are in no backup.
    if (kind === 'directory' || kind === 'tls') return [];
    const inner = around === undefined ? basename(path) : relative(around, path);
    const name = path === main ? 'postgresql.conf' : inner;
    const isElsewhere = around === undefined || name.startsWith('..') || isAbsolute(name);
    const to = isElsewhere
      ? freeName(join(configDir, basename(path)), (one) => taken.has(one) || occupied.has(one))
      : join(configDir, name);
    taken.add(to);
    return [{ from: path, object, to }];
  });
}

/** What has the same name elsewhere, or in the data directory, is another file. */
function freeName(path: string, isTaken: (path: string) => boolean): string {
  for (let n = 1, free = path; ; n++) {
    if (!isTaken(free)) return free;
    free = join(dirname(path), `${n}-${basename(path)}`);
  }
}

/** Directories that are included, and that a server does not start without though they be empty. */
export function adoptedDirectories(
  outside: readonly OutsideFile[],
  configDir: string,
): AdoptedFile[] {
  const main = mainFile(outside);
  if (main === undefined) return [];
  return outside.flatMap(({ path, kind }) => {
    const name = relative(dirname(main), path);
    if (kind !== 'directory' || /^\.\.(\/|$)/.test(name)) return [];
    return [{ from: path, to: join(configDir, name) }];
  });
}

function mainFile(outside: readonly OutsideFile[]): string | undefined {
  const named = (name: string) =>
    outside.find(({ path, kind }) => kind === 'settings' && basename(path) === name)?.path;
  return (
    named('postgresql.conf') ??
    outside.find(({ path, kind }) => kind === 'settings' && /postgres.*\.conf$/.test(path))?.path
  );
}

export interface AdoptOptions {
  dataDir: string;
  /** Where that was, if the configuration says so. */
  oldDataDir?: string | undefined;
  /** Where the file goes. */
  configDir: string;
  adopted: readonly AdoptedFile[];
  directories: readonly AdoptedFile[];
  /** Where it was, and where it goes. */
  file: { from: string; to: string };
  exists: (path: string) => boolean;
  /** Told what leads nowhere now. */
  note?: ((message: string) => void) | undefined;
}
