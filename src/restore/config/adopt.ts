import { dirname, isAbsolute, join } from 'node:path';
import type { OutsideFile } from '../../base/backup-record.js';
import { includedBySettings } from '../../server/included-files.js';
import { quoted, settingOf, settingsIn } from '../config-file.js';
import type { AdoptedFile, AdoptOptions } from './adopted.js';
import { adoptAuthentication } from './authentication.js';

/** Settings with the path of something that must be there for a server to start. */
const NEEDED_FILES = ['ssl_cert_file', 'ssl_key_file', 'ssl_ca_file', 'ssl_crl_file'];
const NEEDED_DIRECTORIES = ['unix_socket_directories', 'stats_temp_directory'];

/** The text of a postgresql.conf with paths that lead to the restored server, not to the lost one. */
export function adoptConfig(text: string, options: AdoptOptions): string {
  const { dataDir, configDir, adopted } = options;
  const stored = adopted.filter(({ object }) => object !== undefined);
  const moved = new Map(stored.map(({ from, to }) => [from, to]));
  const lines = text.split('\n').map((line) => {
    const other = adoptInclude(line, options);
    if (other !== undefined) return other;
    const { name, value } = settingOf(line) ?? {};
    if (name === 'data_directory') {
      const other = configDir === dataDir ? '' : `\ndata_directory = ${quoted(dataDir)}`;
      return value === dataDir && other === '' ? line : `#${line}  # walkeep restore${other}`;
    }
    if (name === 'external_pid_file') return `#${line}  # walkeep restore`;
    const to = value === undefined ? undefined : (moved.get(value) ?? within(value, options));
    if ((name === 'hba_file' || name === 'ident_file') && isAbsolute(value ?? '')) {
      return to === undefined
        ? `#${line}  # walkeep restore`
        : `#${line}  # walkeep restore\n${name} = ${quoted(to)}`;
    }
    return line;
  });
  return lines.join('\n');
}

/** Where something of the old data directory is now; undefined for what was elsewhere. */
export function within(path: string, { oldDataDir, dataDir }: AdoptOptions): string | undefined {
  if (oldDataDir === undefined || !path.startsWith(`${oldDataDir}/`)) return undefined;
  return join(dataDir, path.slice(oldDataDir.length + 1));
}

/** A server does not start if it includes what is not there. Undefined: the line stays as it is. */
function adoptInclude(line: string, options: AdoptOptions): string | undefined {
  const { adopted, directories, file, exists } = options;
  const [was] = includedBySettings(file.from, line);
  const [is] = includedBySettings(file.to, line);
  if (!was || !is) return undefined;
  const own = within(was.path, options);
  if (own !== undefined) {
    const word = was.directory ? 'include_dir' : was.optional ? 'include_if_exists' : 'include';
    if (own === is.path) return undefined;
    return `#${line}  # walkeep restore\n${word} = ${quoted(own)}`;
  }
  const stored = adopted.filter(({ object }) => object !== undefined);
  const places = was.directory
    ? stored.filter(({ from }) => dirname(from) === was.path)
    : stored.filter(({ from }) => from === was.path);
  const leads = was.directory
    ? directories.some(({ from, to }) => from === was.path && to === is.path)
    : places.some(({ to }) => to === is.path);
  const isThere = was.optional || exists(is.path);
  if (leads || (places.length === 0 && isThere)) return undefined;
  if (places.length === 0 && !directories.some(({ from }) => from === was.path)) {
    options.note?.(
      `"${file.to}" includes "${was.path}", which the backup does not have: the line is taken out`,
    );
  }
  const others = places.map(({ to }) => `\ninclude = ${quoted(to)}`);
  return `#${line}  # walkeep restore${others.join('')}`;
}

/** The directories and files of a plan, as texts of which the bytes stay as they are have them. */
export function adoptOptions(
  { dataDir, configDir }: { dataDir: string; configDir: string },
  adopted: readonly AdoptedFile[],
  directories: readonly AdoptedFile[],
  rest: Pick<AdoptOptions, 'oldDataDir' | 'note'> & { exists: (path: string) => boolean },
): Omit<AdoptOptions, 'file'> {
  const { exists, note, oldDataDir } = rest;
  return {
    ...{ dataDir: latin1(dataDir), configDir: latin1(configDir), oldDataDir },
    ...{ adopted: adopted.map(inLatin1), directories: directories.map(inLatin1) },
    exists: (path) => exists(Buffer.from(path, 'latin1').toString('utf8')),
    ...(note && {
      note: (message: string) => note(Buffer.from(message, 'latin1').toString('utf8')),
    }),
  };
}

/** A configuration file with all that it names, where all of that goes. */
export function adoptFile(text: string, kind: OutsideFile['kind'], options: AdoptOptions): string {
  const file = inLatin1(options.file);
  const adapt = kind === 'authentication' ? adoptAuthentication : adoptConfig;
  return adapt(text, { ...options, file });
}

/** Files of the data directory that name others. */
export const OWN_FILES = [
  ['postgresql.conf', 'settings'],
  ['pg_hba.conf', 'authentication'],
  ['pg_ident.conf', 'authentication'],
] as const;

/** Of a server whose data directory is not where its configuration is. */
export function oldDataDirOf(text: string): string | undefined {
  const path = settingsIn(text).get('data_directory');
  return path !== undefined && isAbsolute(path) ? path.replace(/(?<=.)\/+$/, '') : undefined;
}

function latin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

function inLatin1<T extends { from: string; to: string }>(file: T): T {
  return { ...file, from: latin1(file.from), to: latin1(file.to) };
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
