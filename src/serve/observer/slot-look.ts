import { connect } from '../../connection/connect.js';
import { TimeoutError } from '../../errors.js';
import { listSlots } from '../../server/slots.js';
import { secureSearchPath } from '../../server/sql.js';
import type { ServerConfig } from '../config/config.js';
import { serverSettings } from '../config/connections.js';
import { reportOf, type SlotStatus } from '../status.js';

/** Milliseconds for the connection, and for the answer. */
const PATIENCE = 10_000;

/** Asks the server that is received from how its slot is, on a connection that is let go of at once. */
export async function lookAtSlot(config: ServerConfig, slot: string): Promise<SlotStatus> {
  const own = { readAt: new Date().toISOString(), name: slot };
  try {
    return { ...own, ...(await ask(config, slot)) };
  } catch (e) {
    return { ...own, exists: false, error: reportOf(e) };
  }
}

async function ask(
  config: ServerConfig,
  slot: string,
): Promise<Omit<SlotStatus, 'readAt' | 'name'>> {
  // As members are asked: of a database that the connection string need not name.
  const { members: settings } = await serverSettings({ ...config, members: { slots: 'external' } });
  if (!settings) return { exists: false };
  const late = AbortSignal.timeout(PATIENCE);
  const connection = await connect(settings, { replication: 'off', signal: late }).catch((e) => {
    throw late.aborted ? new TimeoutError(`no connection within ${PATIENCE / 1000} s`) : e;
  });
  const timer = setTimeout(() => connection.destroy(), PATIENCE);
  try {
    await secureSearchPath(connection);
    const found = (await listSlots(connection)).find(({ name }) => name === slot);
    if (!found) return { exists: false };
    const { active, walStatus, retainedBytes, safeWalSize, invalidation } = found;
    const status = invalidation === undefined ? walStatus : 'lost';
    return {
      ...{ exists: true, active },
      ...(status === undefined ? {} : { walStatus: status }),
      ...(retainedBytes === undefined ? {} : { retainedBytes: Number(retainedBytes) }),
      ...(safeWalSize === undefined ? {} : { safeBytes: Number(safeWalSize) }),
    };
  } finally {
    clearTimeout(timer);
    await connection.close();
  }
}
