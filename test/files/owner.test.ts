import fs, {
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { acquireDirectoryLock } from '../../src/files/lock.js';
import { giveDirectory, giveFile } from '../../src/files/owner.js';
import type { Lsn } from '../../src/lsn.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { run } from '../cli/run.js';
import { shipOnce } from '../ship/shipping.js';
import { SEGMENT, SYSTEM_ID, sampleArchive, writeLedger } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { storeBackup, tarOf } from '../support/stored-backup.js';

const OWNER = 65_534;
const ID = '20261127T201500F-3fa91c';

/** Of a directory and all below it that are not the owner's. */
function foreign(directory: string): string[] {
  const all = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  // A socket goes with its process; who has the directory can remove it.
  const kept = all.filter((name) => !name.endsWith('.sock'));
  return ['.', ...kept].filter((name) => lstatSync(join(directory, name)).uid !== OWNER);
}

function give(directory: string): void {
  for (const name of ['.', ...readdirSync(directory, { recursive: true, encoding: 'utf8' })]) {
    chownSync(join(directory, name), OWNER, OWNER);
  }
}

describe.skipIf(process.getuid?.() !== 0)(
  'root in the archive of another user (needs root)',
  () => {
    it('leaves nothing there that is not his', async () => {
      const { directory, segmentStart } = sampleArchive(4);
      await writeLedger(directory);
      give(directory);
      const store = await openFileStore(directory, { init: true });
      const [start, end] = [segmentStart(1) + 40n, segmentStart(1) + 5000n] as [Lsn, Lsn];
      const point = { timeline: 1, time: '2026-11-01T00:00:00Z' };
      await storeBackup({
        ...{ store, id: ID },
        tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
        record: {
          ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT },
          ...{ start: { ...point, lsn: start }, end: { ...point, lsn: end } },
          walRanges: [{ timeline: 1, start, end }],
        },
      });
      expect(foreign(directory)).toEqual([]);
      for (const args of [['index'], ['keep'], ['expire', '--redundancy', '1']]) {
        const operands = args[0] === 'keep' ? [directory, ID] : [directory];
        const { code, stderr } = await run('walkeep', ...args, ...operands);
        expect(code, stderr).toBe(0);
        expect(foreign(directory), `${args}`).toEqual([]);
      }
      const lock = await acquireDirectoryLock(directory, { graceMs: 0 });
      expect(foreign(directory)).toEqual([]);
      await lock.release();
    });

    it('ships and pushes so, too', async () => {
      const { directory, names } = sampleArchive(3);
      await writeLedger(directory);
      const [place, pushed] = [scratchDir('shipped'), scratchDir('pushed')];
      for (const one of [directory, place, pushed]) give(one);
      const state = join(directory, 'state', 'of', 'it');
      const store = join(place, 'store');
      await shipOnce(directory, [await openFileStore(store, { init: true })], { state });
      for (const name of names) {
        const { code, stderr } = await run('walkeep', 'push', pushed, join(directory, name));
        expect(code, stderr).toBe(0);
      }
      for (const one of [directory, place, pushed]) expect(foreign(one)).toEqual([]);
      expect(readdirSync(join(store, 'systems'))).toHaveLength(1);
    });

    it('gives away nothing that another put in the place of what it made', () => {
      const directory = scratchDir('swapped');
      const own = scratchDir('own');
      chownSync(directory, OWNER, OWNER);
      symlinkSync(own, join(directory, 'link'));
      giveDirectory(join(directory, 'link'));
      expect(lstatSync(own).uid).toBe(0);
      writeFileSync(join(directory, 'file'), '');
      giveDirectory(join(directory, 'file'));
      expect(lstatSync(join(directory, 'file')).uid).toBe(0);
      mkdirSync(join(own, 'inner'));
      giveDirectory(join(own, 'inner'));
      expect(lstatSync(join(own, 'inner')).uid).toBe(0);
    });

    describe('whose path leads elsewhere from one call to the next', () => {
      /** A link to a directory that `turn` makes one to the other, while nobody looks. */
      function turningLink() {
        const [own, theirs, at] = [scratchDir('own'), scratchDir('theirs'), scratchDir('at')];
        chownSync(theirs, OWNER, OWNER);
        const link = join(at, 'link');
        const lead = (to: string) => {
          symlinkSync(to, `${link}.new`);
          renameSync(`${link}.new`, link);
        };
        return { own, theirs, link, lead };
      }

      /** Runs `act` once for each call that looks at a path in it, with `turn` after that call. */
      function turningAfterEach(before: () => void, turn: () => void, act: () => void): void {
        for (let at = 1, calls = at; calls >= at; at++) {
          before();
          calls = 0;
          for (const name of ['statSync', 'lstatSync', 'openSync'] as const) {
            const call = fs[name] as (...args: unknown[]) => unknown;
            vi.spyOn(fs, name).mockImplementation(((...args: unknown[]) => {
              const answer = call(...args);
              calls += 1;
              if (calls === at) turn();
              return answer;
            }) as never);
          }
          try {
            act();
          } finally {
            vi.restoreAllMocks();
          }
        }
      }

      it('gives away no directory of its own', () => {
        const { own, theirs, link, lead } = turningLink();
        mkdirSync(join(own, 'name'));
        for (const [first, then] of [
          [theirs, own],
          [own, theirs],
        ] as const) {
          turningAfterEach(
            () => lead(first),
            () => lead(then),
            () => giveDirectory(join(link, 'name')),
          );
          expect(lstatSync(join(own, 'name')).uid).toBe(0);
        }
      });

      it('gives away no directory that has something in it', () => {
        const { own, theirs } = turningLink();
        mkdirSync(join(theirs, 'full'));
        mkdirSync(join(theirs, 'empty'));
        writeFileSync(join(theirs, 'full', 'file'), '');
        for (const name of ['full', 'empty']) giveDirectory(join(theirs, name));
        expect(lstatSync(join(theirs, 'full')).uid).toBe(0);
        expect(lstatSync(join(theirs, 'empty')).uid).toBe(OWNER);
        expect(readdirSync(own)).toEqual([]);
      });

      it('gives away no file that lies elsewhere, or has another name', () => {
        const { own, theirs, link, lead } = turningLink();
        lead(own);
        const path = join(link, 'file');
        const fd = openSync(path, 'wx');
        onTestFinished(() => fs.closeSync(fd));
        const uid = () => lstatSync(join(own, 'file')).uid;
        for (const [first, then] of [
          [theirs, theirs],
          [theirs, own],
          [own, theirs],
        ] as const) {
          turningAfterEach(
            () => lead(first),
            () => lead(then),
            () => giveFile(fd, path),
          );
          expect(uid()).toBe(0);
        }
        lead(theirs);
        writeFileSync(path, '');
        giveFile(fd, path);
        expect([uid(), lstatSync(path).uid]).toEqual([0, 0]);
        unlinkSync(path);
        linkSync(join(own, 'file'), path);
        giveFile(fd, path);
        expect(uid()).toBe(0);
        unlinkSync(join(own, 'file'));
        giveFile(fd, path);
        expect(lstatSync(path).uid).toBe(OWNER);
      });
    });
  },
);
