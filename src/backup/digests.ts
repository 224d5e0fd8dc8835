import type { BackupManifest, ManifestAlgorithm, ManifestFile } from '../base/manifest.js';
import { CorruptObjectError } from '../errors.js';
import { WorkingThread } from '../threads.js';
import { type FrameAnswer, FrameDigests, type FrameJob } from './frame-digests.js';

/** What came of one file. */
export interface FileDigest {
  /** Bytes. */
  size: number;
  /** Its checksum by the manifest's algorithm, the bytes in latin1: half of what its digits would take. */
  digest: string;
}

/**
 * Takes digests in a thread of its own: the one that reads what the server sends has no time for them.
 * Where there is none, this thread does it.
 */
export class DigestThread {
  readonly #thread = new WorkingThread<FrameJob, FrameAnswer>('backup/worker.js');
  readonly #here = new FrameDigests();

  async take(job: FrameJob): Promise<FrameAnswer> {
    return this.#thread.isPossible ? this.#thread.run(job) : this.#here.take(job);
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}

/** WAL, which the server sends when it is asked to, has checksums of its own. */
const WAL = /^pg_wal\/[0-9A-F]{24}$/;

/** Differences that are told one by one. */
const TOLD = 5;

/**
 * Compares the files that came with the manifest that came behind them.
 * @param files by their path below the data directory
 * @param algorithm that was asked for
 * @throws CorruptObjectError if one is missing, is too much, or is another one
 */
export function compareWithManifest(
  { files: expected }: Pick<BackupManifest, 'files'>,
  files: ReadonlyMap<string, FileDigest>,
  algorithm: ManifestAlgorithm,
): void {
  const wrong: string[] = [];
  const seen = new Set<string>();
  for (const entry of expected) {
    seen.add(entry.path);
    const why = difference(entry, files.get(entry.path), algorithm);
    if (why !== undefined) wrong.push(`${JSON.stringify(entry.path)} ${why}`);
  }
  for (const path of files.keys()) {
    if (!seen.has(path) && !WAL.test(path)) wrong.push(`${JSON.stringify(path)} is not in it`);
  }
  if (wrong.length === 0) return;
  const more = wrong.length > TOLD ? `, and ${wrong.length - TOLD} more` : '';
  throw new CorruptObjectError(
    `what the server sent is not what its manifest says: ${wrong.slice(0, TOLD).join('; ')}${more}`,
    { hint: 'Something between the server and here changes what is sent. Nothing was committed.' },
  );
}

function difference(
  { size, checksum }: ManifestFile,
  came: FileDigest | undefined,
  algorithm: ManifestAlgorithm,
) {
  if (!came) return 'did not come';
  if (came.size !== size) return `has ${came.size} bytes instead of ${size}`;
  if (checksum?.algorithm !== algorithm) return `has no checksum by ${algorithm} in it`;
  const same = Buffer.from(checksum.hex, 'hex').toString('latin1') === came.digest;
  return same ? undefined : 'has another checksum';
}
