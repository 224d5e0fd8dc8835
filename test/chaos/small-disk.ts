import { execFileSync, spawn } from 'node:child_process';
import { rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scratchDir } from '../support/scratch.js';

/** Unmounts when this process ends, however it does: the pipe closes. */
const WATCHDOG = 'cat >/dev/null; umount -l "$1" 2>/dev/null';

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

  /** Takes all space but for `left` bytes. */
  fill(left: number): void {
    const { bavail, bsize } = statfsSync(this.directory);
    const size = bavail * bsize - left;
    if (size <= 0) return;
    execFileSync('fallocate', ['-l', String(size), this.#filler]);
  }

  free(): void {
    rmSync(this.#filler, { force: true });
  }

  [Symbol.dispose](): void {
    if (!this.#mounted) return;
    execFileSync('umount', ['-l', this.directory]);
  }
}
