import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
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
  return { events, complete: result.complete, passedOver: result.passedOver };
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

describe('a segment that is damaged in one archive is read from the other', () => {
  /** A copy of an archive in which a byte of a segment is another one. */
  function damagedAt(dir: string, name: string, at: number): string {
    const copy = join(scratchDir('damaged'), 'wal');
    cpSync(dir, copy, { recursive: true });
    const content = readFileSync(join(copy, name));
    content[at] = (content[at] as number) ^ 0x40;
    writeFileSync(join(copy, name), content);
    return copy;
  }

  it.each([
    ['promoted', '000000010000000000000007', 3 * 8192 + 4],
    ['promoted', '000000010000000000000007', 90_000],
    ['switch', '000000010000000000000009', 500_000],
    ['promoted', '000000010000000000000007', 10],
    // The two halves of a record that goes over the end of a segment.
    ['record-across-segments', '000000010000000000000006', (1 << 20) - 100],
    ['record-across-segments', '000000010000000000000007', 200],
  ])('of %s, %s at byte %d', async (fixture, name, at) => {
    const { dir } = archiveOf(fixture);
    const expected = await eventsOf(dir);
    expect(expected).toMatchObject({ complete: true, passedOver: [] });
    const copy = damagedAt(dir, name, at);
    expect((await eventsOf(copy)).complete).toBe(false);
    const { place } = await storeArchiveOf(dir);
    const damaged = await storeArchiveOf(copy);
    for (const [bad, places] of [
      [copy, [copy, dir]],
      [copy, [copy, place]],
      [damaged.place, [damaged.place, dir]],
      [damaged.place, [damaged.place, place]],
    ] as const) {
      const { passedOver, ...found } = await eventsOf(places);
      expect(found).toMatchObject({ events: expected.events, complete: true });
      expect(passedOver).toHaveLength(1);
      expect(passedOver[0]?.path).toContain(bad);
      expect(passedOver[0]?.path).toContain(name);
      expect(passedOver[0]?.instead).toContain(places[1]);
    }
    // Whose first copy is good is never asked for the other.
    expect(await eventsOf([dir, copy])).toEqual(expected);
  });

  it('and of two that are, each where the other one is good', async () => {
    const { dir } = archiveOf('promoted');
    const [six, seven] = ['000000010000000000000006', '000000010000000000000007'];
    const places = [damagedAt(dir, six, 100), damagedAt(dir, seven, 50_000)];
    const { passedOver, ...found } = await eventsOf(places);
    const { passedOver: _, ...expected } = await eventsOf(dir);
    expect(found).toEqual(expected);
    expect(passedOver).toMatchObject([{ path: join(places[0] as string, six) }]);
    // The one that is good is read without a look at the other.
    expect(passedOver).toHaveLength(1);
  });

  it('where both are, from the one that is good further, and told', async () => {
    const { dir } = archiveOf('promoted');
    const name = '000000010000000000000007';
    const places = [damagedAt(dir, name, 50_000), damagedAt(dir, name, 80_000)];
    const alone = await eventsOf(places[1] as string);
    const both = await eventsOf(places);
    expect(both).toMatchObject({
      complete: false,
      passedOver: [{ path: join(places[0] as string, name) }],
    });
    expect(both.events).toEqual(alone.events);
  });
});
