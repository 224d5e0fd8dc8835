import fs from 'node:fs';
import { join } from 'node:path';

/** What the pg_control of a server says. */
export interface ServerControl {
  systemId: bigint;
  /** Timeline of its last checkpoint. */
  timeline: number;
}

/** Bytes up to the end of checkPointCopy.ThisTimeLineID. */
const CONTROL_LENGTH = 52;

/**
 * Reads `global/pg_control` below a data directory, where PostgreSQL runs its restore_command
 * (catalog/pg_control.h, ControlFileData of 14 to 18, little-endian): u64 system_identifier at 0,
 * u32 ThisTimeLineID of the last checkpoint at 48. Undefined if there is none to read.
 */
export function readServerControl(dataDir: string): ServerControl | undefined {
  const bytes = new Uint8Array(CONTROL_LENGTH);
  try {
    const fd = fs.openSync(join(dataDir, 'global', 'pg_control'), 'r');
    try {
      if (fs.readSync(fd, bytes) < CONTROL_LENGTH) return undefined;
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return undefined;
  }
  const view = new DataView(bytes.buffer);
  const systemId = view.getBigUint64(0, true);
  return systemId === 0n ? undefined : { systemId, timeline: view.getUint32(48, true) };
}
