import type { FileSystem } from '../files/file-system.js';

/** How compressed content ended. */
export type DecompressEnd =
  /** Properly. */
  | 'complete'
  /**
   * Before its own end, as a file that was being written when the writer died. No checksum of gzip
   * covers what was delivered then: damage can look like content.
   */
  | 'cut'
  /** At bytes that are not of the format, or whose checksum does not match. */
  | 'damaged'
  /** It did not: as many bytes as were asked for have been delivered. */
  | 'limit';

/** How decompressing went. */
export interface FormatResult {
  end: DecompressEnd;
  /** What is damaged. */
  problem?: string;
  /** Something that is not of the format follows the proper end. */
  trailingGarbage: boolean;
}

/** Takes decompressed bytes, valid during the call. True: no more are wanted. */
export type Deliver = (chunk: Uint8Array) => Promise<boolean>;

/** Bytes from front to back, in pieces of the size that a format asks for. */
export interface ByteSource {
  /** Offset of the next byte. */
  readonly position: number;
  /** The next `length` bytes, valid until the next read; undefined if there are fewer. */
  read(length: number): Promise<Uint8Array | undefined>;
  /** What there is up to `length` bytes, at least one; empty at the end. */
  readUpTo(length: number): Promise<Uint8Array>;
  /** True if no byte is left. What was read last stays valid. */
  atEnd(): Promise<boolean>;
  /** Passes over `length` bytes; false if there are fewer. */
  skip(length: number): Promise<boolean>;
  /** Takes back the last bytes that were read. */
  unread(bytes: Uint8Array): void;
}

/** Where compressed content comes from, and the file that it is in, if it is one. */
export interface Compressed {
  /** At its start. */
  reader: ByteSource;
  file?: { path: string; fs: FileSystem };
}

/** Reading one compression: what its module exports. */
export interface Decompressor {
  /**
   * Delivers whatever can be decompressed; the result says how that ended.
   * @throws StorageError if the file cannot be read, what `deliver` throws
   */
  decompress(content: Compressed, deliver: Deliver): Promise<FormatResult>;
  /**
   * The same from memory, for who waits for nothing else: in few large steps, and `append` takes
   * one while the next is made. `uncertain` if there are more than `most` bytes or anything is
   * wrong, which `decompress` then judges. Only of formats that gain by it.
   * @throws what `append` throws
   */
  decompressAtOnce?(
    bytes: Uint8Array,
    append: (chunk: Uint8Array) => void,
    most: number,
  ): Promise<'complete' | 'uncertain'>;
}

/** Writing one compression: what its module exports. */
export interface Compressor {
  /**
   * Compresses the first `length` bytes of the file `from` to the end of `to`, both open.
   * @param level within the bounds of the table, absent for the method's default
   * @throws StorageError or the errno error of a call
   */
  compress(
    from: number,
    to: number,
    length: number,
    options: { level?: number; fs: FileSystem },
  ): Promise<void>;

  /**
   * The same for bytes that are no file, in bounded memory. Its own bytes stay as they are.
   * @throws what `plain` throws
   */
  compressStream(
    plain: AsyncIterable<Uint8Array>,
    options: { level?: number },
  ): AsyncIterable<Uint8Array>;

  /**
   * What is in memory as one member or frame that stands alone, with the checksum and, where the
   * format has it, the size of its content. In Node's thread pool as one piece of work where Node
   * has the format.
   */
  compressWhole(plain: Uint8Array, options: { level?: number }): Promise<Uint8Array>;
}
