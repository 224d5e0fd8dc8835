import { type BackupLabel, parseBackupLabel } from '../../src/base/label.js';
import { type BackupManifest, parseManifest } from '../../src/base/manifest.js';
import { type TarMember, TarReader } from '../../src/base/tar.js';
import type { BackupArchive, BaseBackupHandler } from '../../src/connection/base-backup.js';
import type { BackupPosition, BackupTablespace } from '../../src/protocol/base-backup.js';

/** Takes a backup apart as it comes. */
export class TakenStream implements BaseBackupHandler {
  start: BackupPosition | undefined;
  tablespaces: readonly BackupTablespace[] = [];
  readonly archives: (BackupArchive & { bytes: number })[] = [];
  readonly progress: number[] = [];
  /** By archive and name. */
  readonly members = new Map<string, TarMember>();
  readonly contents = new Map<string, Buffer>();
  #manifest: Buffer[] = [];
  #content: Buffer[] | undefined;
  #tar: TarReader | undefined;

  onStart(start: BackupPosition, tablespaces: readonly BackupTablespace[]): void {
    this.start = start;
    this.tablespaces = tablespaces;
  }
  onArchive(archive: BackupArchive): void {
    this.#tar?.end();
    this.archives.push({ ...archive, bytes: 0 });
    const prefix = archive.oid === undefined ? '' : `pg_tblspc/${archive.oid}/`;
    this.#tar = new TarReader({
      member: (member) => {
        this.members.set(prefix + member.name, member);
        this.#content = member.size < 100_000 ? [] : undefined;
      },
      content: (piece) => this.#content?.push(Buffer.from(piece)),
      done: (member) =>
        this.#content && this.contents.set(prefix + member.name, Buffer.concat(this.#content)),
    });
  }
  onData(chunk: Uint8Array): void {
    (this.archives.at(-1) as { bytes: number }).bytes += chunk.length;
    this.#tar?.feed(chunk);
  }
  onManifest(chunk: Uint8Array): void {
    this.#manifest.push(Buffer.from(chunk));
  }
  onProgress(bytes: number): void {
    this.progress.push(bytes);
  }
  /** As it came. */
  get manifestBytes(): Buffer {
    this.#tar?.end();
    return Buffer.concat(this.#manifest);
  }
  get manifest(): BackupManifest {
    return parseManifest(this.manifestBytes);
  }
  get label(): BackupLabel {
    return parseBackupLabel(this.contents.get('backup_label') as Buffer);
  }
}
