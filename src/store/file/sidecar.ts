import { createHash } from 'node:crypto';
import type { FileStat } from '../../files/tree-file-system.js';
import type { Metadata } from '../store.js';
import type { StoreRoot } from './root.js';

/**
 * What is kept of an object beside its bytes, in a file of its own: the object's file has nothing
 * but the object. It says which file it belongs to, by size and time of change, so that one that a
 * crash left, or that is older than what somebody else put there, is never taken for another
 * object's. `cp -a` and `rsync -a` keep both.
 */
export interface Sidecar {
  key: string;
  size: number;
  mtimeNs: bigint;
  sha256: string;
  meta: Metadata;
  token: string;
}

/** By a digest of the key: any key fits in a name then, and there are few directories. */
export function sidecarPath(root: StoreRoot, key: string): string {
  const name = createHash('sha256').update(key).digest('hex');
  return root.own('meta', name.slice(0, 2), `${name}.json`);
}

export function encodeSidecar(sidecar: Sidecar): Buffer {
  return Buffer.from(`${JSON.stringify({ ...sidecar, mtimeNs: `${sidecar.mtimeNs}` })}\n`);
}

/** Undefined for what is none: then only the bytes are known. */
export function decodeSidecar(text: string | undefined): Sidecar | undefined {
  if (text === undefined) return undefined;
  try {
    const { key, size, mtimeNs, sha256, meta, token } = JSON.parse(text);
    const valid =
      typeof key === 'string' &&
      typeof size === 'number' &&
      typeof token === 'string' &&
      /^\d+$/.test(mtimeNs) &&
      /^[0-9a-f]{64}$/.test(sha256) &&
      Object.values(meta).every((value) => typeof value === 'string');
    return valid ? { key, size, mtimeNs: BigInt(mtimeNs), sha256, meta, token } : undefined;
  } catch {
    return undefined;
  }
}

/** Coarsest step of the times that file systems keep (FAT): two seconds. */
const COARSE = 2_000_000_000n;

export function belongsTo(sidecar: Sidecar, key: string, file: FileStat): boolean {
  if (sidecar.key !== key || sidecar.size !== file.size) return false;
  if (sidecar.mtimeNs === file.mtimeNs) return true;
  // The time may be read exactly from memory first, and as it was stored later.
  const coarse = [COARSE, 1_000_000_000n, 1_000_000n, 1_000n].find((s) => file.mtimeNs % s === 0n);
  const apart = sidecar.mtimeNs - file.mtimeNs;
  return coarse !== undefined && apart > -coarse && apart < coarse;
}
