import { ProtocolError } from '../errors.js';
import { printType } from './backend-message.js';
import {
  archiveName,
  type BackupCompression,
  type BackupPosition,
  type BackupTablespace,
} from './base-backup.js';
import type { CopyOutHandler } from './frame-reader.js';

/** The tar of one directory tree. */
export interface BackupArchive {
  /** `base.tar`, `16388.tar`, or PolarDB's `data.tar`, compressed or not. */
  name: string;
  oid: number | undefined;
  location: string | undefined;
  polar?: 'local' | 'shared';
}

/**
 * Takes a base backup. Called synchronously while a socket read is being consumed; what is thrown
 * ends the connection. Chunks are valid until the call returns.
 */
export interface BaseBackupHandler {
  onStart(start: BackupPosition, tablespaces: readonly BackupTablespace[]): void;
  onArchive(archive: BackupArchive): void;
  /** Of the last archive: a tar, whose two blocks of zeros at the end may be missing. */
  onData(chunk: Uint8Array): void;
  /** Bytes of backup_manifest. */
  onManifest(chunk: Uint8Array): void;
  /** Bytes of all archives so far, by the server's count (15 and newer, once a second). */
  onProgress?(bytes: number): void;
}

/** What is to come. */
export interface BackupStreamOptions {
  tablespaces: readonly BackupTablespace[];
  /** One COPY whose messages say what they are (15 and newer), or one COPY for each part. */
  framed: boolean;
  manifest: boolean;
  compression?: BackupCompression['method'] | undefined;
}

const NEW_ARCHIVE = 0x6e; // n
const DATA = 0x64; // d
const PROGRESS = 0x70; // p
const MANIFEST = 0x6d; // m

/** Bytes of a message that is gathered: a name, and a path of at most MAXPGPATH. */
const MAX_GATHERED = 4096;

const SUFFIX: Readonly<Record<BackupCompression['method'], string>> = {
  gzip: '.gz',
  lz4: '.lz4',
  zstd: '.zst',
};

/**
 * The data of a base backup, from CopyOutResponse to CopyDone. Archives come in the order of the
 * tablespaces, then the manifest; anything else is refused, so that a name never comes from the
 * stream alone.
 */
export class BackupStreamReader implements CopyOutHandler {
  private readonly options: BackupStreamOptions;
  private readonly handler: BaseBackupHandler;
  /** Archives that have begun. */
  private begun = 0;
  private inManifest = false;
  /** Kind of the current message; undefined before its first byte. */
  private kind: number | undefined;
  private readonly gathered = Buffer.alloc(MAX_GATHERED);
  private filled = 0;

  constructor(options: BackupStreamOptions, handler: BaseBackupHandler) {
    this.options = options;
    this.handler = handler;
  }

  /** All that was to come has begun; complete it is only behind CopyDone. */
  get complete(): boolean {
    const { tablespaces, manifest } = this.options;
    return this.begun === tablespaces.length && this.inManifest === manifest;
  }

  /** CopyOutResponse. @throws ProtocolError if there is no more to come */
  onCopyStart(): void {
    const { framed, tablespaces } = this.options;
    if (framed ? this.begun > 0 || this.inManifest : this.complete) {
      throw new ProtocolError('unexpected COPY in a base backup');
    }
    if (framed) return;
    if (this.begun < tablespaces.length) this.beginArchive();
    else this.beginManifest();
  }

  /** CopyDone. @throws ProtocolError if it is too early */
  onCopyDone(): void {
    if (this.options.framed && !this.complete) {
      throw new ProtocolError('the base backup ended before all of it had come');
    }
  }

  onCopyHeader(length: number): void {
    if (!this.options.framed) return;
    if (length === 0) throw new ProtocolError('an empty message in a base backup');
    this.kind = undefined;
    this.filled = 0;
  }

  onCopyBytes(chunk: Buffer): void {
    let payload = chunk;
    if (this.options.framed) {
      if (this.kind === undefined) {
        this.kind = this.begin(chunk[0] as number);
        payload = chunk.subarray(1);
      }
      if (this.kind !== DATA) {
        this.gather(payload);
        return;
      }
      if (payload.length === 0) return;
    }
    if (this.inManifest) this.handler.onManifest(payload);
    else this.handler.onData(payload);
  }

  onCopyEnd(): void {
    if (!this.options.framed || this.kind === DATA) return;
    const body = this.gathered.subarray(0, this.filled);
    if (this.kind === NEW_ARCHIVE) this.announced(body);
    else if (this.kind === PROGRESS) this.progress(body);
    else if (body.length > 0) throw new ProtocolError('extraneous data in a manifest message');
    else this.beginManifest();
  }

  private begin(kind: number): number {
    switch (kind) {
      case DATA:
        if (this.begun === 0) throw new ProtocolError('data before the first archive of a backup');
        return kind;
      case NEW_ARCHIVE:
      case PROGRESS:
      case MANIFEST:
        return kind;
      default:
        throw new ProtocolError(`unexpected message ${printType(kind)} in a base backup`);
    }
  }

  private gather(bytes: Buffer): void {
    if (bytes.length > MAX_GATHERED - this.filled) {
      throw new ProtocolError(`message ${printType(this.kind as number)} of a backup is too long`);
    }
    this.filled += bytes.copy(this.gathered, this.filled);
  }

  /** Two strings, each with a zero byte behind it. */
  private announced(body: Buffer): void {
    const [name, location, rest, ...more] = body.toString('latin1').split('\0');
    if (location === undefined || rest !== '' || more.length > 0) {
      throw new ProtocolError('the announcement of an archive is not two strings');
    }
    const { compression } = this.options;
    const tablespace = this.options.tablespaces[this.begun];
    const expected = tablespace && [
      archiveName(tablespace) + (compression ? SUFFIX[compression] : ''),
      tablespace.location ?? '',
    ];
    if (!expected || this.inManifest || name !== expected[0] || location !== expected[1]) {
      throw new ProtocolError(
        `unexpected archive ${JSON.stringify(name)} at ${JSON.stringify(location)} in a backup`,
        { expected: expected && !this.inManifest ? expected.join(' at ') : 'none' },
      );
    }
    this.beginArchive();
  }

  private progress(body: Buffer): void {
    if (body.length !== 8) throw new ProtocolError('a progress report is not 8 bytes');
    const bytes = body.readBigInt64BE();
    if (bytes < 0n || bytes > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ProtocolError(`a progress report says ${bytes} bytes`);
    }
    this.handler.onProgress?.(Number(bytes));
  }

  private beginArchive(): void {
    const tablespace = this.options.tablespaces[this.begun++] as BackupTablespace;
    const { size, ...rest } = tablespace;
    this.handler.onArchive({ name: archiveName(tablespace), ...rest });
  }

  private beginManifest(): void {
    const { manifest, tablespaces } = this.options;
    if (!manifest || this.inManifest || this.begun < tablespaces.length) {
      throw new ProtocolError('unexpected manifest in a base backup');
    }
    this.inManifest = true;
  }
}
