import { isIP } from 'node:net';
import { ConninfoError } from '../../errors.js';
import { defaultHost, isSocketPath } from './local-system.js';
import type { HostTarget } from './settings.js';
import { parseInteger } from './values.js';

const DEFAULT_PORT = 5432;

/**
 * The places to try, in order, from the comma lists of `host`, `hostaddr` and `port` (PostgreSQL
 * docs, "Specifying Multiple Hosts"; pqConnectOptions2 in fe-connect.c). An empty entry means the
 * default, one port serves all hosts. An entry with an address only keeps an empty `host`.
 */
export function resolveTargets(values: ReadonlyMap<string, string>): HostTarget[] {
  const hosts = list(values.get('host'));
  const addresses = list(values.get('hostaddr'));
  const ports = list(values.get('port')) ?? [''];

  const count = (addresses ?? hosts ?? ['']).length;
  if (hosts && hosts.length !== count) {
    throw new ConninfoError(
      `could not match ${hosts.length} host names to ${count} hostaddr values`,
    );
  }
  if (ports.length !== 1 && ports.length !== count) {
    throw new ConninfoError(`could not match ${ports.length} port numbers to ${count} hosts`);
  }

  const fallback = defaultHost();
  return Array.from({ length: count }, (_, i) => {
    const host = hosts?.[i] ?? '';
    refuseConnectionString(host);
    const hostaddr = addresses?.[i] ?? '';
    const port = parsePort(ports.length === 1 ? ports[0]! : ports[i]!);
    if (hostaddr === '') return { host: host || fallback, port };
    if (isIP(hostaddr) === 0) {
      throw new ConninfoError(`could not parse network address "${hostaddr}"`);
    }
    return { host, hostaddr, port };
  });
}

/** Looked up as a name, a connection string would show its password to every name server. */
function refuseConnectionString(host: string): void {
  if (isSocketPath(host) || !/\/\/|[=\s]/.test(host)) return;
  throw new ConninfoError('host name is a connection string', {
    hint: 'Give a connection string with --dbname.',
  });
}

function list(value: string | undefined): string[] | undefined {
  return value ? value.split(',') : undefined;
}

function parsePort(text: string): number {
  if (text === '') return DEFAULT_PORT;
  const port = parseInteger(text, 'port');
  if (port < 1 || port > 65535) throw new ConninfoError(`invalid port number: "${text}"`);
  return port;
}
