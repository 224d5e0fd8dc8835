import { basename, dirname, isAbsolute, join, relative } from 'node:path';
import type { OutsideFile } from '../base/backup-record.js';
import { includedBySettings } from '../server/included-files.js';
import { quoted, settingOf, settingsIn } from './config-file.js';

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
export function adoptedFiles(outside: readonly OutsideFile[], configDir: string): AdoptedFile[] {
  const main = mainFile(outside);
  const around = main ? dirname(main) : undefined;
  const taken = new Set<string>();
  return outside.flatMap(({ path, object, kind }) => {
    // Directories are made by themselves; certificates and keys are in no backup.
    if (kind === 'directory' || kind === 'tls') return [];
    const inner = around === undefined ? basename(path) : relative(around, path);
    const name = path === main ? 'postgresql.conf' : inner;
    const to = join(configDir, name.startsWith('..') || isAbsolute(name) ? basename(path) : name);
    if (taken.has(to)) return [];
    taken.add(to);
    return [{ from: path, object, to }];
  });
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
  const named = (name: string) => outside.find(({ path }) => basename(path) === name)?.path;
  return (
    named('postgresql.conf') ?? outside.find(({ path }) => /postgres.*\.conf$/.test(path))?.path
  );
}

/** Settings with the path of something that must be there for a server to start. */
const NEEDED_FILES = ['ssl_cert_file', 'ssl_key_file', 'ssl_ca_file', 'ssl_crl_file'];
const NEEDED_DIRECTORIES = ['unix_socket_directories', 'stats_temp_directory'];

export interface AdoptOptions {
  dataDir: string;
  /** Where the file goes. */
  configDir: string;
  adopted: readonly AdoptedFile[];
  directories: readonly AdoptedFile[];
  /** Where it was, and where it goes. */
  file: { from: string; to: string };
  exists: (path: string) => boolean;
}

/** The text of a postgresql.conf with paths that lead to the restored server, not to the lost one. */
export function adoptConfig(text: string, options: AdoptOptions): string {
  const { dataDir, configDir, adopted } = options;
  const moved = new Map(adopted.map(({ from, to }) => [from, to]));
  const lines = text.split('\n').map((line) => {
    const other = adoptInclude(line, options);
    if (other !== undefined) return other;
    const { name, value } = settingOf(line) ?? {};
    if (name === 'data_directory') {
      const other = configDir === dataDir ? '' : `\ndata_directory = ${quoted(dataDir)}`;
      return value === dataDir && other === '' ? line : `#${line}  # walkeep restore${other}`;
    }
    if (name === 'external_pid_file') return `#${line}  # walkeep restore`;
    const to = value === undefined ? undefined : moved.get(value);
    if ((name === 'hba_file' || name === 'ident_file') && isAbsolute(value ?? '')) {
      return to === undefined
        ? `#${line}  # walkeep restore`
        : `#${line}  # walkeep restore\n${name} = ${quoted(to)}`;
    }
    return line;
  });
  return lines.join('\n');
}

/** A server does not start if it includes what is not there. Undefined: the line stays as it is. */
function adoptInclude(line: string, options: AdoptOptions): string | undefined {
  const { adopted, directories, file, exists } = options;
  const [was] = includedBySettings(file.from, line);
  const [is] = includedBySettings(file.to, line);
  if (!was || !is || was.optional) return undefined;
  const stored = adopted.filter(({ object }) => object !== undefined);
  const places = was.directory
    ? stored.filter(({ from }) => dirname(from) === was.path)
    : stored.filter(({ from }) => from === was.path);
  const leads = was.directory
    ? directories.some(({ from, to }) => from === was.path && to === is.path)
    : places.some(({ to }) => to === is.path);
  if (leads || (places.length === 0 && exists(is.path))) return undefined;
  const others = places.map(({ to }) => `\ninclude = ${quoted(to)}`);
  return `#${line}  # walkeep restore${others.join('')}`;
}

/** What a restored postgresql.conf names and this machine does not have. */
export function missingPaths(text: string, exists: (path: string) => boolean): string[] {
  const settings = settingsIn(text);
  const missing: string[] = [];
  const uses =
    settings.get('ssl') === 'on' ? [...NEEDED_FILES, ...NEEDED_DIRECTORIES] : NEEDED_DIRECTORIES;
  for (const name of uses) {
    for (const path of (settings.get(name) ?? '').split(',').map((one) => one.trim())) {
      if (isAbsolute(path) && !exists(path)) missing.push(`${name} = ${quoted(path)}`);
    }
  }
  return missing;
}

/** For a server whose own one nobody could read: it starts, and lets in who is on its machine. */
export const MINIMAL_CONFIG =
  '# Made by walkeep restore: the backup does not have the one of the server.\n';
export const MINIMAL_HBA = `${MINIMAL_CONFIG}local all all peer\n`;
