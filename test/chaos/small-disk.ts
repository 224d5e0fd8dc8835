import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  fsyncSync,
  openSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { scratchDir } from '../support/scratch.js';

/** Unmounts when this process ends, however it does: the pipe closes. */
const WATCHDOG = 'cat >/dev/null; umount -l "$1" 2>/dev/null';

const BLOCKS = [Buffer.alloc(64 * 1024), Buffer.alloc(4096)];

/** False if there is no space for it. */
function tryWrite(fd: number, block: Buffer): boolean {
  try {
    return writeSync(fd, block) > 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    return false;
  }
}

/** A file system of its own, on a loop file, that can be filled and freed again. */
export class SmallDisk {
  readonly directory: string;
  readonly #mounted: boolean;

  private constructor(directory: string, mounted: boolean) {
    this.directory = directory;
    this.#mounted = mounted;
  }

  /**
   * Mounts one where this process may. Otherwise gives a plain directory and says why.
   * @param gigabytes its size; the loop file is sparse
   */
  static create(gigabytes: number): { disk: SmallDisk; why?: string } {
    const directory = scratchDir('wal');
    const image = join(scratchDir('image'), 'image');
    const run = (program: string, ...args: string[]) =>
      execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    try {
      writeFileSync(image, '');
      truncateSync(image, gigabytes * 2 ** 30);
      run('mkfs.ext4', '-q', '-m', '0', '-b', '4096', image);
      run('mount', '-o', 'loop', image, directory);
    } catch (error) {
      const why = (error as { stderr?: Buffer }).stderr?.toString().trim();
      return { disk: new SmallDisk(directory, false), why: why || String(error) };
    }
    const watchdog = spawn('sh', ['-c', WATCHDOG, 'watchdog', directory], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
    });
    watchdog.unref();
    (watchdog.stdin as unknown as { unref(): void }).unref();
    rmSync(join(directory, 'lost+found'), { recursive: true });
    return { disk: new SmallDisk(directory, true) };
  }

  get canFill(): boolean {
    return this.#mounted;
  }

  get #filler(): string {
    return join(this.directory, '.filler');
  }

  /** Takes all space but for about `left` bytes. */
  fill(left: number): void {
    const free = () => {
      const { bavail, bsize } = statfsSync(this.directory);
      return bavail * bsize;
    };
    // Most of it at once; the file system needs some for itself, so that is no sharp limit.
    const most = free() - 16 * 2 ** 20;
    if (most > 0) execFileSync('fallocate', ['-l', String(most), this.#filler]);
    const fd = openSync(this.#filler, 'a');
    try {
      // What is written gets its place only when it is synced, and that may take less than was kept.
      for (let wrote = true; wrote; fsyncSync(fd)) {
        wrote = false;
        for (const block of BLOCKS) {
          while (free() > left && tryWrite(fd, block)) wrote = true;
        }
      }
    } finally {
      closeSync(fd);
    }
  }

  free(): void {
    rmSync(this.#filler, { force: true });
  }

  [Symbol.dispose](): void {
    if (!this.#mounted) return;
    execFileSync('umount', ['-l', this.directory]);
  }
}
