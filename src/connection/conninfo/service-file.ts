import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConninfoError, NotSupportedError } from '../../errors.js';
import { KEYWORDS } from './keywords.js';
import { homeDirectory } from './local-system.js';

/**
 * Where a system-wide pg_service.conf is looked for without PGSYSCONFDIR. libpq has one directory
 * compiled in; these are those of Debian's and of Red Hat's packages.
 */
const SYSTEM_DIRECTORIES = ['/etc/postgresql-common', '/etc/sysconfig/pgsql'];

/**
 * The parameters of a service (PostgreSQL docs, "The Connection Service File"; parseServiceInfo in
 * fe-connect.c): `file` or ~/.pg_service.conf first, then the system-wide file.
 * @throws ConninfoError when a file is wrong or none defines the service.
 */
export async function readService(
  service: string,
  file: string | undefined,
  env: NodeJS.ProcessEnv,
): Promise<Map<string, string>> {
  for (const path of candidates(file, env)) {
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (cause) {
      throw new ConninfoError(`service file "${path}" not found`, { path, cause });
    }
    const values = parseServiceFile(text, service, path);
    if (values) return values;
  }
  throw new ConninfoError(`definition of service "${service}" not found`);
}

/** A file that was named must be there; the others are looked at where they exist. */
function candidates(file: string | undefined, env: NodeJS.ProcessEnv): string[] {
  const home = homeDirectory(env);
  const own = home === undefined ? [] : [join(home, '.pg_service.conf')];
  const system = (env.PGSYSCONFDIR === undefined ? SYSTEM_DIRECTORIES : [env.PGSYSCONFDIR]).map(
    (directory) => join(directory, 'pg_service.conf'),
  );
  if (file !== undefined) return [file, ...system.filter((path) => existsSync(path))];
  return [...own, ...system].filter((path) => existsSync(path));
}

/**
 * The values in the group `[service]`, the first one for each keyword; undefined when the file has
 * no such group. `path` is for messages; a line's content is not shown, it may be a password.
 */
export function parseServiceFile(
  text: string,
  service: string,
  path: string,
): Map<string, string> | undefined {
  let values: Map<string, string> | undefined;
  for (const [index, raw] of text.split('\n').entries()) {
    // Not trim(): a value may end in a blank of another script.
    const line = raw.replace(/^[ \t\v\f\r]+|[ \t\v\f\r]+$/g, '');
    if (line === '' || line.startsWith('#')) continue;
    if (line.startsWith('[')) {
      if (values) break;
      if (line.startsWith(`[${service}]`)) values = new Map();
      continue;
    }
    if (!values) continue;

    const where = `service file "${path}", line ${index + 1}`;
    if (line.startsWith('ldap')) {
      throw new NotSupportedError(`LDAP lookup is not supported in ${where}`, { path });
    }
    const equals = line.indexOf('=');
    const name = line.slice(0, Math.max(equals, 0));
    if (name === 'service') {
      throw new ConninfoError(`nested service specifications not supported in ${where}`, { path });
    }
    if (name === 'servicefile') {
      throw new ConninfoError(`nested "servicefile" specifications not supported in ${where}`, {
        path,
      });
    }
    if (!KEYWORDS.has(name)) throw new ConninfoError(`syntax error in ${where}`, { path });
    if (!values.has(name)) values.set(name, line.slice(equals + 1));
  }
  return values;
}
