import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type TarMember, TarReader, tarHeader } from '../../src/base/tar.js';
import { CorruptObjectError } from '../../src/errors.js';

type Given = Omit<TarMember, 'offset' | 'size'> & { data: Buffer };

const file = (name: string, data: Buffer | string): Given => ({
  ...{ name, type: 'file', mode: 0o600, mtime: 1_700_000_000, link: '' },
  data: Buffer.from(data),
});
const directory = (name: string): Given => ({ ...file(name, ''), type: 'directory', mode: 0o700 });
const symlink = (name: string, link: string): Given => ({
  ...file(name, ''),
  type: 'symlink',
  link,
});

function pack(members: readonly Given[], end = 1024): Buffer {
  const parts = members.flatMap(({ data, ...m }) => [
    tarHeader({ ...m, size: data.length }),
    data,
    Buffer.alloc((512 - (data.length % 512)) % 512),
  ]);
  return Buffer.concat([...parts, Buffer.alloc(end)]);
}

function read(tar: Buffer, step = tar.length || 1) {
  const found: Given[] = [];
  const offsets: number[] = [];
  let done = 0;
  const reader = new TarReader({
    member: ({ offset, size: _, ...m }) => {
      found.push({ ...m, data: Buffer.alloc(0) });
      offsets.push(offset);
    },
    content: (piece) => {
      const last = found.at(-1) as Given;
      last.data = Buffer.concat([last.data, piece]);
    },
    done: () => done++,
  });
  for (let at = 0; at < tar.length; at += step) reader.feed(tar.subarray(at, at + step));
  reader.end();
  expect(done).toBe(found.length);
  expect(reader.position).toBe(tar.length);
  return { found, offsets };
}

const name = fc
  .array(fc.stringMatching(/^[a-zA-Z0-9_\-é ]{1,12}$/), { minLength: 1, maxLength: 5 })
  .map((parts) => parts.join('/'));
const given = fc.oneof(
  fc.tuple(name, fc.uint8Array({ maxLength: 2000 })).map(([n, d]) => file(n, Buffer.from(d))),
  name.map(directory),
  name.map((n) => symlink(n, '/srv/space')),
);

describe('TarReader', () => {
  it('reads what tarHeader writes, in pieces of any size, with and without an end', () => {
    fc.assert(
      fc.property(
        fc.array(given, { maxLength: 8 }),
        fc.integer({ min: 1, max: 3000 }),
        fc.constantFrom(0, 1024, 4096),
        (members, step, end) => {
          expect(read(pack(members, end), step).found).toEqual(members);
        },
      ),
    );
  });

  it('tells where each member begins', () => {
    const { offsets } = read(pack([file('a', 'x'), file('b', ''), file('c', Buffer.alloc(513))]));
    expect(offsets).toEqual([0, 1024, 1536]);
  });

  it('reads sizes beyond the octal ones', () => {
    const size = 8 * 1024 ** 3 + 5;
    const header = tarHeader({ ...directory('x'), type: 'file', size });
    const sizes: number[] = [];
    const reader = new TarReader({
      member: (m) => sizes.push(m.size),
      content: () => {},
      done: () => {},
    });
    reader.feed(header);
    expect(sizes).toEqual([size]);
    expect(() => reader.end()).toThrow(CorruptObjectError);
  });

  it('finds every flipped bit of a header', () => {
    const tar = pack([file('base/1/1259', Buffer.alloc(700, 7)), directory('pg_wal')]);
    for (let bit = 0; bit < 512 * 8; bit++) {
      const damaged = Buffer.from(tar);
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(() => read(damaged), `bit ${bit}`).toThrow(CorruptObjectError);
    }
  });

  it('finds every truncation', () => {
    const tar = pack([file('a', Buffer.alloc(700, 7)), file('b', 'x')], 0);
    const whole = new Set([0, 512 + 1024, tar.length]);
    for (let length = 0; length < tar.length; length++) {
      if (whole.has(length)) continue;
      expect(() => read(tar.subarray(0, length)), `${length}`).toThrow(CorruptObjectError);
    }
  });

  it.each(['../x', '/etc/passwd', 'a/../b', 'a//b', './a', 'a/', ''])(
    'refuses a file called "%s"',
    (bad) => {
      expect(() => read(pack([file(bad, 'x')]))).toThrow(CorruptObjectError);
    },
  );

  it('reads the directories that PostgreSQL writes with a point before them', () => {
    const { found } = read(pack([directory('./pg_wal/archive_status')]));
    expect(found[0]).toMatchObject({ name: 'pg_wal/archive_status', type: 'directory' });
    for (const bad of ['././x', './../x', './']) {
      expect(() => read(pack([directory(bad)])), bad).toThrow(CorruptObjectError);
    }
  });

  it('refuses what PostgreSQL does not send', () => {
    const changed = (at: number, value: string): Buffer => {
      const header = tarHeader({ ...directory('x'), size: 0 });
      header.write(value, at, 'latin1');
      header.fill(0x20, 148, 156);
      const sum = header.reduce((a, b) => a + b, 0);
      header.write(`${sum.toString(8).padStart(7, '0')} `, 148, 'latin1');
      return Buffer.concat([header, Buffer.alloc(1024)]);
    };
    expect(read(changed(0, 'y')).found[0]?.name).toBe('y');
    // A hard link, GNU's long name, pax.
    for (const type of '13L67xg') expect(() => read(changed(156, type))).toThrow(/of type/);
    expect(() => read(changed(257, 'ustar  '))).toThrow('not ustar');
    expect(() => read(changed(345, 'prefix'))).toThrow('prefix');
    expect(() => read(changed(157, 'elsewhere'))).toThrow('link');
    expect(() => read(changed(124, '00000000010 '))).toThrow('content');
    expect(() => read(changed(124, '0000000x010 '))).toThrow('number');
    expect(() => read(changed(0, 'x'.repeat(100)))).toThrow('no end');
    const tar = pack([file('a', 'x')]);
    tar[600] = 1;
    expect(() => read(tar)).toThrow('padding');
    const more = Buffer.concat([pack([file('a', 'x')]), pack([file('b', 'x')])]);
    expect(() => read(more)).toThrow('behind its end');
    expect(() => read(pack([file('a', 'x')], 512))).toThrow('too early');
  });
});
