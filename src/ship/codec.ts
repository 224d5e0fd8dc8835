import zlib from 'node:zlib';
import type { ObjectCodec } from '../archive/store-archive-writer.js';
import { parseRecipients } from '../codec/age/recipients.js';
import { loadCodecs, requireLevel } from '../codec/codecs.js';
import { decodeBytes, type EncodeOptions, encodeSegment, stagesOf } from '../codec/stages.js';
import { EncryptedError } from '../errors.js';
import type { ShipCompression } from './options.js';

/** zstd where Node.js has it: in WebAssembly it would be the bottleneck, which gzip:1 is not. */
const DEFAULT: ShipCompression =
  'createZstdCompress' in zlib ? { method: 'zstd' } : { method: 'gzip', level: 1 };

/**
 * What makes objects, checked before anything is shipped, and loaded: the files that it is in may be
 * replaced while it runs.
 * @throws UsageError
 */
export async function objectCodec(
  { method, level }: ShipCompression = DEFAULT,
  recipients: readonly string[] = [],
): Promise<ObjectCodec> {
  const options: EncodeOptions = {
    ...(method === 'none' ? {} : { codec: method }),
    ...(level === undefined ? {} : { level }),
    ...(recipients.length === 0 ? {} : { recipients: await parseRecipients(recipients) }),
  };
  if (method !== 'none' && level !== undefined) requireLevel('ship', method, level);
  await loadCodecs();
  const stages = stagesOf(options).join(',') || 'none';
  return {
    async encode(plain) {
      const pieces: Uint8Array[] = [];
      for await (const piece of encodeSegment(plain, options)) pieces.push(piece);
      return { pieces, stages };
    },
    async decode(stored) {
      try {
        return (await decodeBytes(stored, { name: 'the stored object' })).content;
      } catch (e) {
        // Who ships has public keys only.
        if (e instanceof EncryptedError) return undefined;
        throw e;
      }
    },
  };
}
