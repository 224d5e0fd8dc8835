import { createHash } from 'node:crypto';
import type { ManifestAlgorithm } from '../../base/manifest.js';
import { readChunk } from '../../wal/chunk.js';
import { CRC_INIT, updateCrc } from '../../wal/crc32c.js';
import { KERNEL } from '../../wal/kernel.js';

/** The checksum of a file, taken piece by piece. */
export interface FileHash {
  update(bytes: Uint8Array): void;
  /** In hex, as in a manifest. */
  digest(): string;
}

export function fileHash(algorithm: ManifestAlgorithm): FileHash {
  if (algorithm === 'CRC32C') return new Crc32cHash();
  const hash = createHash(algorithm.toLowerCase());
  return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest('hex') };
}

class Crc32cHash implements FileHash {
  #state = CRC_INIT;

  update(bytes: Uint8Array): void {
    readChunk(bytes, 0, bytes.length, 0, (copy, words, from, to) => {
      this.#state = KERNEL
        ? KERNEL.crc(this.#state, from, to)
        : updateCrc(this.#state, copy, words, from, to);
    });
  }

  /** Manifests have its bytes in the server's order, which is that of the WAL that is read here. */
  digest(): string {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(~this.#state);
    return bytes.toString('hex');
  }
}
