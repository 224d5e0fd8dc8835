import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StoreAccessError } from '../../../errors.js';
import type { Surroundings } from './source.js';

/** Settings by their names in lower case; one with lines below it is `name.inner`. */
export type Settings = ReadonlyMap<string, string>;

export interface SharedFiles {
  profiles: ReadonlyMap<string, Settings>;
  /** Sections `[services NAME]`: endpoints of single services. */
  services: ReadonlyMap<string, Settings>;
  /** Where they are, for messages. */
  paths: readonly string[];
}

/**
 * What AWS's tools share: `~/.aws/config` and `~/.aws/credentials`. Read anew each time, since who
 * rotates keys writes them there. A file that is not there is empty.
 */
export async function readSharedFiles({ env, home }: Surroundings): Promise<SharedFiles> {
  const fileAt = (given: string | undefined, name: string): SharedFile =>
    given
      ? { path: given.replace(/^~(?=\/|$)/, home), named: true }
      : { path: join(home, '.aws', name), named: false };
  const config = fileAt(env.AWS_CONFIG_FILE, 'config');
  const credentials = fileAt(env.AWS_SHARED_CREDENTIALS_FILE, 'credentials');
  const profiles = new Map<string, Map<string, string>>();
  const services = new Map<string, Map<string, string>>();
  const merge = (into: typeof profiles, name: string, settings: Settings) => {
    const before = into.get(name) ?? new Map<string, string>();
    into.set(name, new Map([...before, ...settings]));
  };
  // `[profile default]` counts before `[default]`.
  const sections = [...parseSections(await textOf(config))].sort(
    (a, b) => Number(a[0] === 'profile default') - Number(b[0] === 'profile default'),
  );
  for (const [heading, settings] of sections) {
    const [, kind, name] = /^(profile|services) (.+)$/.exec(heading) ?? [];
    if (name !== undefined) merge(kind === 'profile' ? profiles : services, name, settings);
    else if (heading === 'default') merge(profiles, 'default', settings);
  }
  for (const [name, settings] of parseSections(await textOf(credentials))) {
    merge(profiles, name, settings);
  }
  return { profiles, services, paths: [config.path, credentials.path] };
}

interface SharedFile {
  path: string;
  /** By the environment, and not just the usual one. */
  named: boolean;
}

async function textOf({ path, named }: SharedFile): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return '';
    // A service may run with the home of a user that it is not: that is as good as none.
    if (!named && (code === 'EACCES' || code === 'EPERM')) return '';
    throw new StoreAccessError(`cannot read the profiles in ${path}: ${message}`, { path, cause });
  }
}

/** The sections of such a file in their order; lines that are nothing are passed over, as AWS does. */
export function parseSections(text: string): Map<string, Settings> {
  const sections = new Map<string, Map<string, string>>();
  let section: Map<string, string> | undefined;
  let outer = '';
  for (const line of text.split(/\r?\n/)) {
    const bare = line.trim();
    if (bare === '' || /^[#;]/.test(bare)) continue;
    const heading = /^\[\s*(.*?)\s*\]\s*([#;].*)?$/.exec(line)?.[1];
    if (heading !== undefined) {
      const name = unquoted(heading);
      section = sections.get(name) ?? new Map();
      sections.set(name, section);
      outer = '';
      continue;
    }
    const setting = /^([^=]+?)\s*=\s*(.*)$/.exec(bare);
    if (!setting || !section) continue;
    const key = (setting[1] as string).toLowerCase();
    // What follows a blank and "#" or ";" is a comment.
    const value = (setting[2] as string).replace(/(^|\s+)[#;].*$/, '').trim();
    if (/^\s/.test(line) && outer !== '') section.set(`${outer}.${key}`, value);
    else {
      section.set(key, value);
      outer = value === '' ? key : '';
    }
  }
  return sections;
}

/** `[profile "my shop"]`: its name without quotes. */
function unquoted(heading: string): string {
  return heading.replace(/\s+/, ' ').replace(/^((?:profile|services) )?"(.*)"$/, '$1$2');
}
