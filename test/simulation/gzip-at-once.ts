import { type Duplex, Transform } from 'node:stream';
import zlib from 'node:zlib';
import type { GzipCodec } from '../../src/files/file-system.js';

/**
 * node:zlib's gzip without its threads, so that the order of events repeats: all is done when the
 * input ends.
 */
export const gzipAtOnce: GzipCodec = {
  createGzip: (options) => atOnce((all) => zlib.gzipSync(all, options)),
  createInflateRaw: (options) => {
    const stream: Duplex & { bytesWritten: number } = Object.assign(
      atOnce((all) => {
        const { buffer, engine } = zlib.inflateRawSync(all, {
          ...options,
          info: true,
        }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
        stream.bytesWritten = engine.bytesWritten;
        return buffer;
      }),
      { bytesWritten: 0 },
    );
    return stream;
  },
};

function atOnce(convert: (all: Buffer) => Buffer): Transform {
  const chunks: Buffer[] = [];
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      // The writer uses its buffer again.
      chunks.push(Buffer.from(chunk));
      done();
    },
    flush(done) {
      try {
        done(null, convert(Buffer.concat(chunks)));
      } catch (e) {
        done(e as Error);
      }
    },
  });
}
