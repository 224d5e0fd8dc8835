import type { TarIndex } from '../base/base-index.js';
import type { ManifestAlgorithm } from '../base/manifest.js';
import type { PageCheck } from '../base/page-check.js';
import { TAR_BLOCK, type TarMember, TarReader } from '../base/tar.js';
import { CorruptObjectError, ProtocolError } from '../errors.js';
import { DigestThread, type FileDigest } from './digests.js';
import type { FramePart } from './frame-digests.js';
import type { BackupObjects } from './objects.js';
import { type FrameDigest, type VolumeMemory, VolumeWriter } from './volumes.js';

/** Files of the main tar that are stored once more, as they are: what reads backups needs them first. */
export const VERBATIM = {
  backup_label: 'backup_label',
  tablespace_map: 'tablespace_map',
  'global/pg_control': 'pg_control',
} as const;
type Verbatim = keyof typeof VERBATIM;

/** Bytes of a file of these, at most: pg_control has 8 kB. */
const MOST_VERBATIM = 16 * 1024 * 1024;

/** Where in the data directory the files of a tar are: of a tablespace's below its link. */
function rootOf(oid: number | undefined): string {
  return oid === undefined ? '' : `pg_tblspc/${oid}/`;
}

/** A tar of the server's, as it came. */
export interface ReceivedTar {
  name: string;
  oid: number | undefined;
  index: TarIndex;
  size: number;
  volumes: string[];
}

export interface SinkOptions {
  memory: VolumeMemory;
  objects: BackupObjects;
  /** Of the manifest that was asked for. */
  algorithm: ManifestAlgorithm;
  /** One of the files that are stored once more has come. */
  onVerbatim?(path: Verbatim, content: Buffer): void;
  /** Storing failed: nothing more needs to come. */
  onFailure(error: unknown): void;
}

/**
 * Takes the data of a base backup as they come: reads the tars, and passes the bytes on to have their
 * digests taken, to be compressed and stored. Synchronous: what throws here ends the backup.
 */
export class BackupSink {
  /** By path below the data directory. */
  readonly files = new Map<string, FileDigest>();
  readonly verbatim = new Map<Verbatim, Buffer>();
  /** Looks at the pages, if that was asked for. */
  pages: PageCheck | undefined;
  /** Bytes of tar that came. */
  bytes = 0;
  /** Of the number of a volume. */
  digits = 4;
  readonly #options: SinkOptions;
  readonly digests = new DigestThread();
  readonly #tars: ReceivedTar[] = [];
  readonly #ends: Promise<void>[] = [];
  readonly #manifest: Buffer[] = [];
  #tar: TarStream | undefined;

  constructor(options: SinkOptions) {
    this.#options = options;
  }

  onArchive({ name, oid }: { name: string; oid: number | undefined }): void {
    this.#endTar();
    this.#tar = new TarStream(this, name, oid, this.#options);
  }

  onData(chunk: Uint8Array): void {
    if (!this.#tar) throw new ProtocolError('data of a base backup came before its first archive');
    this.bytes += chunk.length;
    this.#tar.feed(chunk);
  }

  onManifest(chunk: Uint8Array): void {
    this.#endTar();
    // It belongs to the connection, which uses it again.
    this.#manifest.push(Buffer.from(chunk));
  }

  /** Nothing more comes. Resolves when all of it is stored. */
  async end(): Promise<{ tars: ReceivedTar[]; manifest: Buffer }> {
    this.#endTar();
    await Promise.all(this.#ends);
    const manifest = Buffer.concat(this.#manifest.splice(0));
    return { tars: this.#tars, manifest };
  }

  /** Whatever came of it. */
  close(): Promise<void> {
    return this.digests.close();
  }

  #endTar(): void {
    const tar = this.#tar;
    this.#tar = undefined;
    if (!tar) return;
    const ended = tar.end();
    const { name, oid, members, writer } = tar;
    const { frames, volumes } = writer;
    this.#tars.push({ name, oid, index: { name, frames, members }, size: writer.size, volumes });
    ended.catch(this.#options.onFailure);
    this.#ends.push(ended);
  }
}

/** Where in a tar the content of a file is, and whose digest is to be. */
interface Content {
  from: number;
  to: number;
  file: FileDigest;
}

/** One tar on its way. */
class TarStream {
  readonly name: string;
  readonly oid: number | undefined;
  readonly members: TarMember[] = [];
  readonly writer: VolumeWriter;
  readonly #sink: BackupSink;
  readonly #options: SinkOptions;
  readonly #root: string;
  readonly #reader: TarReader;
  /** What has begun and is not all in frames that are full. */
  readonly #contents: Content[] = [];
  #kept: Buffer[] | undefined;

  constructor(sink: BackupSink, name: string, oid: number | undefined, options: SinkOptions) {
    const { memory, objects, onFailure } = options;
    this.name = name;
    this.oid = oid;
    this.writer = new VolumeWriter({
      ...{ name, digits: sink.digits, memory, objects, onFailure },
      digest: (frame, offset) => this.#digest(frame, offset),
    });
    this.#sink = sink;
    this.#options = options;
    this.#root = rootOf(oid);
    this.#reader = new TarReader({
      member: (member) => this.#begin(member),
      content: (piece) => {
        this.#kept?.push(Buffer.from(piece));
        sink.pages?.content(piece);
      },
      done: (member) => this.#done(member),
    });
  }

  /** Read before it is written: whose content is in a frame is known when that is full. */
  feed(chunk: Uint8Array): void {
    this.#reader.feed(chunk);
    this.writer.write(chunk);
  }

  /** Resolves when it is stored. @throws CorruptObjectError if it is cut short */
  end(): Promise<void> {
    this.#reader.end();
    if (!this.#reader.terminated) this.feed(Buffer.alloc(2 * TAR_BLOCK));
    return this.writer.end();
  }

  #begin(member: TarMember): void {
    this.members.push(member);
    if (member.type !== 'file') return;
    const path = `${this.#root}${member.name}`;
    if (this.#sink.files.has(path)) {
      throw new CorruptObjectError(`${JSON.stringify(path)} is twice in the base backup`);
    }
    this.#sink.pages?.begin(path);
    const file = { size: member.size, digest: '' };
    this.#sink.files.set(path, file);
    const from = member.offset + TAR_BLOCK;
    this.#contents.push({ from, to: from + member.size, file });
    if (!(path in VERBATIM)) return;
    if (member.size > MOST_VERBATIM) {
      throw new CorruptObjectError(`${JSON.stringify(path)} has ${member.size} bytes`);
    }
    this.#kept = [];
  }

  #done(member: TarMember): void {
    if (!this.#kept) return;
    const path = `${this.#root}${member.name}`;
    this.#verbatim(path as Verbatim, Buffer.concat(this.#kept));
    this.#kept = undefined;
  }

  #verbatim(path: Verbatim, content: Buffer): void {
    this.#sink.verbatim.set(path, content);
    this.#options.onVerbatim?.(path, content);
  }

  async #digest(frame: Buffer, offset: number): Promise<FrameDigest> {
    const { memory, algorithm } = this.#options;
    const { parts, ended } = this.#partsOf(offset, offset + frame.length);
    const { isPlain } = memory;
    const [only] = parts;
    const isContent = parts.length === 1 && only?.from === 0 && only.to === frame.length;
    const job = { frame, parts, algorithm, whole: isPlain || isContent };
    const { files, sha256 } = await this.#sink.digests.take(job);
    for (const [i, file] of ended.entries()) {
      file.digest = Buffer.from(files[i] ?? '', 'hex').toString('latin1');
    }
    return isPlain
      ? { stored: sha256, content: undefined }
      : { stored: undefined, content: sha256 };
  }

  /** Content in a frame, and the files that end there. */
  #partsOf(begin: number, end: number): { parts: FramePart[]; ended: FileDigest[] } {
    const parts: FramePart[] = [];
    const ended: FileDigest[] = [];
    for (const { from, to, file } of this.#contents) {
      if (from > end) break;
      const last = to <= end;
      parts.push({ from: Math.max(from, begin) - begin, to: Math.min(to, end) - begin, last });
      if (last) ended.push(file);
    }
    this.#contents.splice(0, ended.length);
    return { parts, ended };
  }
}
