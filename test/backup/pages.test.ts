import { describe, expect, it } from 'vitest';
import { judgePages } from '../../src/backup/pages.js';
import { setPageChecksum } from '../../src/base/page.js';
import { PageCheck, SEGMENT_BLOCKS } from '../../src/base/page-check.js';
import type { ReplicationConnection } from '../../src/connection/connection.js';
import { AuthenticationError, CorruptObjectError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { controlFile } from '../support/stored-chain.js';

const SIZE = 8192;
const START = 0x2_00000028n as Lsn;
const CONTROL = controlFile({ blockSize: SIZE, segmentBlocks: SEGMENT_BLOCKS });
const TABLE = 'base/5/16384';

function page(lsn: bigint, block = 1, fill = 7): Buffer {
  const bytes = Buffer.alloc(SIZE, fill);
  bytes.writeUInt32LE(Number(lsn >> 32n), 0);
  bytes.writeUInt32LE(Number(lsn & 0xffffffffn), 4);
  bytes.writeUInt16LE(4096, 14);
  setPageChecksum(bytes, block);
  return bytes;
}

function damaged(bytes: Buffer): Buffer {
  const bad = Buffer.from(bytes);
  bad[5000] = (bad[5000] as number) ^ 0x10;
  return bad;
}

interface Told {
  path?: string;
  control?: Buffer | undefined;
  isStrict?: boolean;
  connect?: () => Promise<ReplicationConnection>;
}

const firstOf = (path: string) => (path.endsWith('.1') ? SEGMENT_BLOCKS : 0);

/** What is said of a file whose second page came damaged, and is `now` on the server. */
async function judged(now: Buffer, { path = TABLE, isStrict = true, ...rest }: Told = {}) {
  const check = new PageCheck({ start: START });
  check.begin(path);
  const first = firstOf(path);
  const pages = [page(START, first), damaged(page(START, first + 1)), page(START, first + 2)];
  check.content(Buffer.concat(pages));
  const asked: string[] = [];
  const server = {
    query: async (sql: string) => {
      asked.push(sql);
      return { fields: [{ name: 'page' }], rows: [[Buffer.from(now.toString('base64'))]] };
    },
    close: async () => {},
  } as unknown as ReplicationConnection;
  const warnings: string[] = [];
  const result = await judgePages(check, {
    ...{ control: CONTROL, start: START, isStrict, connect: async () => server },
    warn: (message) => void warnings.push(message),
    ...rest,
  }).catch((e) => e);
  return { result, warnings, asked };
}

const WRONG = `1 page has a wrong checksum: block 1 of "${TABLE}"`;

describe('a page that came with a wrong checksum', () => {
  it.each<[string, Buffer]>([
    ['is on the server as it came', damaged(page(START))],
    ['is good there, and no WAL of the backup has it', page(START)],
    ['is another one there that no WAL of the backup has', page(START - 1n, 1, 9)],
    ['has nothing in it there', Buffer.alloc(SIZE)],
  ])('is wrong where it %s', async (_, now) => {
    const { result, asked } = await judged(now);
    expect(result).toBeInstanceOf(CorruptObjectError);
    expect(result.message).toBe(WRONG);
    expect(asked).toEqual([expect.stringContaining(`('${TABLE}', ${SIZE}, ${SIZE}, true)`)]);
    const told = await judged(now, { isStrict: false });
    expect(told).toMatchObject({ result: true, warnings: [WRONG] });
  });

  it.each<[string, Buffer]>([
    ['was changed since the backup began', page(START + 1n)],
    ['was changed since, and is being written once more', damaged(page(START + 1n))],
    ['is not there any more', Buffer.alloc(0)],
    ['is cut off', page(START).subarray(0, 100)],
  ])('is nothing where it %s: WAL tells of it', async (_, now) => {
    expect(await judged(now)).toMatchObject({ result: true, warnings: [] });
  });

  it.each(['_fsm', '_vm', '_vm.1'])(
    'is nothing where the server has a good one of a %s',
    async (of) => {
      const path = `${TABLE}${of}`;
      const now = page(START, firstOf(path) + 1);
      expect(await judged(now, { path })).toMatchObject({ result: true, warnings: [] });
      const { result } = await judged(damaged(now), { path });
      expect(result).toBeInstanceOf(CorruptObjectError);
    },
  );

  it('is wrong where the server may not be asked', async () => {
    const connect = async () => {
      throw new AuthenticationError('no');
    };
    const { result } = await judged(page(START + 1n), { connect });
    expect(result).toBeInstanceOf(CorruptObjectError);
  });

  it.each<[string, Buffer | undefined, RegExp]>([
    ['without pg_control', undefined, /its pg_control cannot be read/],
    [
      'of a cluster without checksums',
      controlFile({ blockSize: SIZE, segmentBlocks: SEGMENT_BLOCKS }, false),
      /the cluster has none/,
    ],
    [
      'of other sizes',
      controlFile({ blockSize: 4096, segmentBlocks: 8 }),
      /its pages have 4096 bytes, its files 8 pages/,
    ],
  ])('is not judged %s', async (_, control, why) => {
    const { result, warnings } = await judged(page(START), { control });
    expect(result).toBe(false);
    expect(warnings).toEqual([expect.stringMatching(why)]);
  });
});
