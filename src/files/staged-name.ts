import { liveness, type ProcessIdentity } from './process-identity.js';

/**
 * Names of files under way that say who writes them: what a killed writer left takes no space until
 * somebody thinks that it is old.
 */
export function stagedName(writer: ProcessIdentity): string {
  const { bootId, pidNamespace, pid, startTime, token } = writer;
  const namespace = pidNamespace.replace(/\D/g, '');
  return [token, bootId, namespace, pid, startTime].join('_');
}

/** True if the writer of a staged file provably is no more. */
export async function isOrphaned(name: string, self: ProcessIdentity): Promise<boolean> {
  const [token, bootId, namespace, pid, startTime] = name.split('_');
  if (!token || !bootId || !namespace || !pid || !startTime) return false;
  const pidNamespace = `pid:[${namespace}]`;
  const owner = { host: '', bootId, pidNamespace, pid: Number(pid), startTime, token };
  return (await liveness(owner, self)) === 'dead';
}
