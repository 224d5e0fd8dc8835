/** What a standby tells the server about itself; positions are LSNs, 0 means "none". */
export interface StandbyStatus {
  /** Taken by the operating system up to here. */
  write: bigint;
  /** On stable storage up to here. */
  flush: bigint;
  /** Replayed up to here; a receiver replays nothing and says 0. */
  apply: bigint;
  /** Asks the server to answer with a keepalive at once. */
  replyRequested?: boolean;
}

/** 2000-01-01 in milliseconds since 1970 (POSTGRES_EPOCH_JDATE, datatype/timestamp.h). */
const POSTGRES_EPOCH_MS = 946_684_800_000;

/** The clock as the protocol counts it: microseconds since 2000-01-01 UTC. */
export function postgresClock(now: number = Date.now()): number {
  return (now - POSTGRES_EPOCH_MS) * 1000;
}

/** 'd', length, 'r', write, flush, apply, clock (8 bytes each), reply flag. */
export const STATUS_FRAME_LENGTH = 39;

/**
 * Writes the Standby status update as a whole CopyData frame into `target` (STATUS_FRAME_LENGTH
 * bytes, see protocol.sgml).
 */
export function encodeStatus(target: DataView, status: StandbyStatus, clock: number): void {
  target.setUint8(0, 0x64);
  target.setUint32(1, STATUS_FRAME_LENGTH - 1);
  target.setUint8(5, 0x72);
  target.setBigUint64(6, status.write);
  target.setBigUint64(14, status.flush);
  target.setBigUint64(22, status.apply);
  // As two words: every bigint is made in memory, and a commit waits for this.
  target.setInt32(30, Math.floor(clock / 2 ** 32));
  target.setUint32(34, clock);
  target.setUint8(38, status.replyRequested === true ? 1 : 0);
}
