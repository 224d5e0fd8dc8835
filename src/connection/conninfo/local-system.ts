import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { ConninfoError } from '../../errors.js';

/**
 * Home directory of the operating system user: HOME, else the user database. Undefined when
 * there is none, which is no error: the files looked for there are then simply not there.
 */
export function homeDirectory(env: NodeJS.ProcessEnv): string | undefined {
  if (env.HOME) return env.HOME;
  try {
    return userInfo().homedir || undefined;
  } catch {
    return undefined;
  }
}

/** Name of the operating system user, libpq's default for `user`. */
export function localUserName(): string {
  try {
    return userInfo().username;
  } catch (cause) {
    throw new ConninfoError(`local user with ID ${process.geteuid?.()} does not exist`, {
      cause,
      hint: 'Name the database user with -U, PGUSER or the keyword user.',
    });
  }
}

const DEBIAN_SOCKET_DIRECTORY = '/var/run/postgresql';
const UPSTREAM_SOCKET_DIRECTORY = '/tmp';

/**
 * The host when none is given. libpq has the socket directory compiled in; walkeep takes that of
 * Debian's and Red Hat's packages where the directory exists, else upstream's.
 */
export function defaultHost(): string {
  if (process.platform === 'win32') return 'localhost';
  return existsSync(DEBIAN_SOCKET_DIRECTORY) ? DEBIAN_SOCKET_DIRECTORY : UPSTREAM_SOCKET_DIRECTORY;
}

/** Whether a host names a unix socket directory (`/…`) or an abstract socket (`@…`). */
export function isSocketPath(host: string): boolean {
  return host.startsWith('/') || host.startsWith('@');
}
