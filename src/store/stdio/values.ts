import {
  CorruptObjectError,
  DiskFullError,
  type ErrorDetails,
  FsyncError,
  StoreAccessError,
  StoreConflictError,
  StoreUncertainError,
  StoreUnsupportedError,
  UsageError,
  WalkeepError,
} from '../../errors.js';
import type { Entry, Head } from '../store.js';
import { violation } from './frame.js';

/** What is sent across, as JSON has it. */

const CLASSES: Readonly<
  Record<string, new (message: string, details?: ErrorDetails) => WalkeepError>
> = {
  WK_STORE_UNCERTAIN: StoreUncertainError,
  WK_STORE_ACCESS: StoreAccessError,
  WK_STORE_CONFLICT: StoreConflictError,
  WK_STORE_UNSUPPORTED: StoreUnsupportedError,
  WK_CORRUPT_OBJECT: CorruptObjectError,
  WK_USAGE: UsageError,
  WK_DISK_FULL: DiskFullError,
  WK_FSYNC: FsyncError,
};
const DETAILS = ['key', 'path', 'expected', 'actual', 'hint', 'detail'] as const;

export function encodeError(error: unknown): Record<string, string> {
  // Anything else is no answer either.
  if (!(error instanceof WalkeepError)) {
    return { code: 'WK_STORE_UNCERTAIN', message: `failed there: ${String(error)}` };
  }
  const { code, message } = error;
  const details = DETAILS.flatMap((name) => {
    const value = error[name];
    return value === undefined ? [] : [[name, value]];
  });
  return { code, message, ...Object.fromEntries(details) };
}

/** @param place where it happened */
export function decodeError(fields: Record<string, unknown>, place: string): WalkeepError {
  const { code, message } = fields;
  const known = Object.hasOwn(CLASSES, String(code)) ? CLASSES[String(code)] : undefined;
  const details: Record<string, string> = { detail: `At ${place}.` };
  for (const name of DETAILS) {
    const value = fields[name];
    if (typeof value === 'string') details[name] = value;
  }
  return new (known ?? StoreUncertainError)(String(message), details);
}

export interface WireEntry {
  key: string;
  size: number;
  /** Milliseconds since 1970. */
  modified: number;
}

export function encodeEntry({ key, size, modified }: Entry): WireEntry {
  return { key, size, modified: modified.getTime() };
}

export function decodeEntry(value: unknown): Entry {
  const { key, size, modified } = (value ?? {}) as Partial<WireEntry>;
  if (typeof key !== 'string' || typeof size !== 'number' || typeof modified !== 'number') {
    throw violation('an entry that is none');
  }
  return { key, size, modified: new Date(modified) };
}

/** @throws StoreUncertainError */
export function decodeEntries(payload: Buffer): Entry[] {
  let entries: unknown;
  try {
    entries = JSON.parse(payload.toString());
  } catch {
    // Said below.
  }
  if (!Array.isArray(entries)) throw violation('a listing that is none');
  return entries.map(decodeEntry);
}

export function encodeHead(head: Head): object {
  return { ...encodeEntry(head), sha256: head.sha256, meta: head.meta };
}

export function decodeHead(value: unknown): Head {
  const entry = decodeEntry(value);
  const { sha256, meta } = value as { sha256?: unknown; meta?: unknown };
  if (typeof meta !== 'object' || meta === null) throw violation('a head that is none');
  const known = typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256);
  return { ...entry, sha256: known ? sha256 : undefined, meta: meta as Head['meta'] };
}
