import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openDirectory } from '../../../src/archive/places/directory-archive.js';
import { JoinedArchive } from '../../../src/archive/places/joined-archive.js';
import { openArchive } from '../../../src/archive/places/open-archive.js';
import type { WalEvent } from '../../../src/find/event.js';
import { findEvents } from '../../../src/find/find.js';
import { lengthWithoutZeros } from '../../../src/wal/zeros.js';
import { scratchDir } from '../../support/scratch.js';
import { storeArchiveOf } from '../../support/store-archive.js';
import { archiveOf } from '../../support/wal-archive.js';

async function eventsOf(places: string | readonly string[]) {
  const events: WalEvent[] = [];
  const result = await findEvents(places, {}, (event) => void events.push(event));
  return { events, complete: result.complete };
}

it('takes the begin of a segment that nobody has whole any more', async () => {
  const name = '000000010000000000000001';
  const [has, lacks] = [scratchDir('has'), scratchDir('lacks')];
  writeFileSync(join(has, `${name}.partial`), 'begin');
  const joined = new JoinedArchive([openDirectory(has), openDirectory(lacks)]);
  expect(await joined.segment(name, async (file) => `${await file.size()} ${file.name}`)).toBe(
    `5 ${name}.partial`,
  );
});

it('reads a segment where it is whole, though an archive before has its begin', async () => {
  const { dir } = archiveOf('switch');
  const { place } = await storeArchiveOf(dir);
  const behind = join(scratchDir('behind'), 'wal');
  cpSync(dir, behind, { recursive: true });
  for (const name of readdirSync(behind).filter((name) => /^[0-9A-F]{24}$/.test(name))) {
    const begin = Buffer.from(readFileSync(join(behind, name))).fill(0, 8192);
    rmSync(join(behind, name));
    writeFileSync(join(behind, `${name}.partial`), begin);
  }
  const lagging = (await storeArchiveOf(behind)).place;
  const expected = await eventsOf(dir);
  expect(expected).toMatchObject({ complete: true, events: [{}] });
  expect(await eventsOf([behind, place])).toEqual(expected);
  expect(await eventsOf([lagging, dir])).toEqual(expected);
});

it('reads of two begins of a segment the longer one, whichever is named first', async () => {
  const { dir } = archiveOf('switch');
  const expected = await eventsOf(dir);
  const last = readdirSync(dir)
    .filter((name) => /^[0-9A-F]{24}/.test(name))
    .sort()
    .at(-1) as string;
  const base = last.slice(0, 24);
  const shorter = join(scratchDir('shorter'), 'wal');
  cpSync(dir, shorter, { recursive: true });
  const content = readFileSync(join(shorter, last));
  rmSync(join(shorter, last));
  writeFileSync(
    join(shorter, `${base}.partial`),
    Buffer.from(content).fill(0, lengthWithoutZeros(content) / 2),
  );
  const longer = join(scratchDir('longer'), 'wal');
  cpSync(dir, longer, { recursive: true });
  rmSync(join(longer, last));
  writeFileSync(join(longer, `${base}.partial`), content);
  const alone = await eventsOf(longer);
  expect(alone.events).toEqual(expected.events);
  for (const places of [
    [shorter, longer],
    [longer, shorter],
    [(await storeArchiveOf(shorter)).place, longer],
    [shorter, (await storeArchiveOf(longer)).place],
  ]) {
    const joined = new JoinedArchive(await Promise.all(places.map((place) => openArchive(place))));
    const bytes = await joined.segment(`${base}.partial`, async (file) => {
      const pieces: Uint8Array[] = [];
      for await (const piece of file.bytes(content.length)) pieces.push(Buffer.from(piece));
      return Buffer.concat(pieces);
    });
    await joined.close();
    expect(bytes.subarray(0, content.length).equals(content)).toBe(true);
    expect(await eventsOf(places)).toEqual(alone);
  }
});
