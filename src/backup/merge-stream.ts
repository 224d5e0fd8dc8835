import type { BackupReader } from '../archive/backups/reader.js';
import type { Chain } from '../archive/combine/chain.js';
import { FileCursor } from '../archive/combine/cursor.js';
import { openCombined } from '../archive/combine/file.js';
import { FrameCache } from '../archive/combine/frames.js';
import { locator, planChain } from '../archive/combine/plan.js';
import type { CombineContext, CombinedFile, FileSource } from '../archive/combine/source.js';
import type { BaseIndex } from '../base/base-index.js';
import { wholePath } from '../base/incremental.js';
import { fullBackupLabel } from '../base/label.js';
import type { BackupManifest } from '../base/manifest.js';
import { TAR_BLOCK, type TarMember, tarHeader } from '../base/tar.js';
import { CorruptObjectError } from '../errors.js';

const LABEL = 'backup_label';
/** Bytes that are handed on at a time. */
const OUT = 1024 * 1024;

/**
 * The tars of the full backup that a chain is made into, as the server would send them: those of the
 * last one, with whole files instead of incremental ones.
 */
export class MergeStream {
  readonly #last: BackupReader;
  readonly #index: BaseIndex;
  readonly #context: CombineContext;
  readonly #files: ReadonlyMap<string, CombinedFile>;
  readonly #manifest: ReadonlyMap<string, BackupManifest['files'][0]>;
  readonly #at: ReturnType<typeof locator>;

  private constructor(
    chain: Chain,
    index: BaseIndex,
    files: readonly CombinedFile[],
    manifest: BackupManifest,
    signal: AbortSignal,
  ) {
    const backup = chain.readers.length - 1;
    this.#last = chain.readers[backup] as BackupReader;
    this.#index = index;
    this.#context = { ...chain, frames: new FrameCache(chain.readers, signal) };
    this.#files = new Map(files.map((file) => [file.path, file]));
    this.#manifest = new Map(manifest.files.map((file) => [file.path, file]));
    this.#at = locator(this.#last, index, backup);
  }

  /** @param manifest of the last backup. @throws as `planChain` */
  static async open(
    chain: Chain,
    manifest: BackupManifest,
    signal: AbortSignal,
  ): Promise<MergeStream> {
    const last = chain.readers.at(-1) as BackupReader;
    const index = await last.index(signal);
    const files = await planChain(chain, signal);
    return new MergeStream(chain, index, files, manifest, signal);
  }

  /** Bytes of all tars, about: how long a file is, its own incremental file tells. */
  get size(): number {
    const others = [...this.#files.values()].reduce(
      (sum, { sources }) => sum + (sources.at(-1)?.size ?? 0),
      0,
    );
    return this.#last.record.size + others;
  }

  /**
   * All of a tar.
   * @param out is awaited; the bytes are valid until then
   * @throws CorruptObjectError that names the file and its backup; what the place throws
   */
  async tar(n: number, out: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    const oid = this.#last.record.tars[n]?.oid;
    const root = oid === undefined ? '' : `pg_tblspc/${oid}/`;
    for (const member of this.#index.tars[n]?.members ?? []) {
      const path = `${root}${member.name}`;
      const whole = member.type === 'file' ? wholePath(member.name) : undefined;
      if (member.type !== 'file') await out(tarHeader(member));
      else if (whole !== undefined) await this.#combined({ ...member, name: whole }, root, out);
      else if (path === LABEL) await this.#label(n, member, out);
      else {
        await out(tarHeader(member));
        await this.#content(n, member, path, out);
        await out(padding(member.size));
      }
    }
    await out(new Uint8Array(2 * TAR_BLOCK));
  }

  async #combined(
    member: TarMember,
    root: string,
    out: (bytes: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const file = this.#files.get(`${root}${member.name}`) as CombinedFile;
    const { size, write } = await openCombined(file, this.#context);
    await out(tarHeader({ ...member, size }));
    await write(out);
    await out(padding(size));
  }

  async #label(
    n: number,
    member: TarMember,
    out: (bytes: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const pieces: Buffer[] = [];
    await this.#content(n, member, LABEL, async (bytes) => void pieces.push(Buffer.from(bytes)));
    const content = fullBackupLabel(Buffer.concat(pieces));
    await out(tarHeader({ ...member, size: content.length }));
    await out(content);
    await out(padding(content.length));
  }

  /** Of a file that the last backup has whole: it is compared with its manifest, too. */
  async #content(
    n: number,
    member: TarMember,
    path: string,
    out: (bytes: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const known = this.#manifest.get(path);
    const source: FileSource = { ...this.#at(n, member, path, 'full'), checksum: known?.checksum };
    const cursor = new FileCursor(source, this.#context.frames);
    if (!known && !WAL.test(path)) throw cursor.corrupt('it is not in the manifest of that backup');
    if (known && known.size !== member.size) {
      throw cursor.corrupt(`it has ${member.size} bytes, in the manifest ${known.size}`);
    }
    const buffer = new Uint8Array(Math.min(OUT, member.size));
    for (let at = 0; at < member.size; at += buffer.length) {
      const bytes = buffer.subarray(0, Math.min(buffer.length, member.size - at));
      await cursor.read(at, bytes.length, bytes, 0);
      await out(bytes);
    }
    await cursor.end();
  }
}

/** WAL that a backup brings along is in no manifest. */
export const WAL = /^pg_wal\/[0-9A-F]{24}$/;

function padding(size: number): Uint8Array {
  return new Uint8Array((TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK);
}

/** @throws CorruptObjectError */
export function lastModifiedOf(manifest: BackupManifest): (path: string) => string {
  const times = new Map<string, string>();
  for (const { path, lastModified } of manifest.files) {
    times.set(wholePath(path) ?? path, lastModified);
  }
  return (path) => {
    const time = times.get(path);
    if (time !== undefined) return time;
    throw new CorruptObjectError(`${JSON.stringify(path)} is not in the manifest`);
  };
}
