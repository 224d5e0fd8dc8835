import { createHash } from 'node:crypto';
import { type FileHash, fileHash } from '../archive/backups/file-hash.js';
import type { ManifestAlgorithm } from '../base/manifest.js';

/** A part of a frame that is content of a file. */
export interface FramePart {
  from: number;
  to: number;
  /** The file ends here. */
  last: boolean;
}

export interface FrameJob {
  /** In memory that all threads see. */
  frame: Uint8Array;
  parts: FramePart[];
  /** Of the files. */
  algorithm: ManifestAlgorithm;
  /** The digest of the frame itself is wanted too. */
  whole: boolean;
}

export interface FrameAnswer {
  /** Checksums of the files that end in it, in their order. */
  files: string[];
  /** SHA-256 of the frame, in hex. */
  sha256: string | undefined;
}

/** Takes the digests of what is in frames, which come in their order: a file may be in several. */
export class FrameDigests {
  #hash: FileHash | undefined;

  take({ frame, parts, algorithm, whole }: FrameJob): FrameAnswer {
    const files: string[] = [];
    for (const { from, to, last } of parts) {
      this.#hash ??= fileHash(algorithm);
      if (to > from) this.#hash.update(frame.subarray(from, to));
      if (!last) continue;
      files.push(this.#hash.digest());
      this.#hash = undefined;
    }
    const sha256 = whole ? createHash('sha256').update(frame).digest('hex') : undefined;
    return { files, sha256 };
  }
}
