import { parseSegmentFileName } from '../../src/wal/file-name.js';
import { SEGMENT } from './arena.js';
import type { Random } from './random.js';
import { Inode, type SimulatedDisk } from './simulated-disk.js';

/** Where another program, as Barman, brings what is complete: a copy on a disk that loses nothing. */
export class MovedFiles {
  readonly names = new Map<string, Inode>();

  /** Moves most of the complete files that are in the directory now. */
  take(disk: SimulatedDisk, random: Random): string[] {
    const taken: string[] = [];
    for (const [name, inode] of [...disk.names]) {
      const parsed = parseSegmentFileName(name, SEGMENT);
      if (!parsed || parsed.partial || random.chance(0.2)) continue;
      const copy = new Inode();
      copy.write(inode.content, 0, 0);
      this.names.set(name, copy);
      disk.unlink(name);
      taken.push(name);
    }
    return taken;
  }
}
