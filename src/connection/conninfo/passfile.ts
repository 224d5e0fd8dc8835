import { readFileSync, type Stats, statSync } from 'node:fs';
import { defaultHost, isSocketPath } from './local-system.js';
import type { HostTarget } from './settings.js';

/** What a line of the password file is matched against. */
export interface PassfileKey {
  /** Host name, address, or socket directory. */
  host: string;
  port: number;
  database: string;
  user: string;
}

/**
 * Why the password file must not be used, in libpq's words; undefined when it may be, or when it
 * is not there. On Windows the directory protects it.
 */
export function passfileWarning(path: string): string | undefined {
  const stat = fileStat(path);
  if (!stat || process.platform === 'win32') return undefined;
  if (!stat.isFile()) return `password file "${path}" is not a plain file`;
  if ((stat.mode & 0o077) !== 0) {
    return `password file "${path}" has group or world access; permissions should be u=rw (0600) or less`;
  }
  return undefined;
}

function fileStat(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/**
 * Looks the password of a target up in the file (PostgreSQL docs, "The Password File";
 * passwordFromFile in fe-connect.c). The database is the one that the connection sends:
 * `replication` unless the connection string names another. The file is read again each time, so
 * that a reconnect sees a rotated password; it is small and on the way to the server anyway.
 */
export function passfileLookup(
  path: string,
  session: { database: string; user: string },
): (target: HostTarget) => string | undefined {
  return (target) => {
    if (passfileWarning(path) !== undefined) return undefined;
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      // libpq ignores a password file that it cannot read.
      return undefined;
    }
    return findPassword(text, {
      host: target.host || target.hostaddr || '',
      port: target.port,
      ...session,
    });
  };
}

/** The password on the first line that matches; undefined without one, or when it is empty. */
export function findPassword(text: string, key: PassfileKey): string | undefined {
  const isDefaultSocket = isSocketPath(key.host) && key.host === defaultHost();
  const host = key.host === '' || isDefaultSocket ? 'localhost' : key.host;
  const wanted = [host, String(key.port), key.database, key.user];
  for (const line of text.split('\n')) {
    if (line.startsWith('#')) continue;
    const fields = splitFields(line.replace(/\r+$/, ''));
    const password = fields[wanted.length];
    if (password === undefined) continue;
    if (wanted.every((value, i) => fields[i] === '*' || unescaped(fields[i] ?? '') === value)) {
      return unescaped(password) || undefined;
    }
  }
  return undefined;
}

/** The fields of a line, still escaped: a `*` is a wildcard only where no backslash made it plain. */
function splitFields(line: string): string[] {
  const fields: string[] = [];
  let start = 0;
  for (let at = 0; at < line.length; at++) {
    if (line[at] === '\\') at++;
    else if (line[at] === ':') {
      fields.push(line.slice(start, at));
      start = at + 1;
    }
  }
  return [...fields, line.slice(start)];
}

/** A backslash makes the next character plain; one at the very end is itself. */
function unescaped(field: string): string {
  return field.replace(/\\(.)/gs, '$1');
}
