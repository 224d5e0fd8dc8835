import { UsageError } from '../errors.js';
import { nearest } from '../options.js';

/** The server of that name. @throws UsageError if there is none */
export function serverNamed<T>(servers: ReadonlyMap<string, T>, name: string): T {
  const server = servers.get(name);
  if (server !== undefined) return server;
  const meant = nearest(name, [...servers.keys()]);
  throw new UsageError(
    `there is no server "${name}"`,
    meant === undefined ? {} : { hint: `Did you mean "${meant}"?` },
  );
}
