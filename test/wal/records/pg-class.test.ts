import { expect, test } from 'vitest';
import { namedRelation } from '../../../src/wal/records/pg-class.js';

const PG_CLASS = { spcOid: 1663, dbOid: 5, relNumber: 1259 };

function row(name: Uint8Array | string, length = 160): Uint8Array {
  const bytes = Buffer.alloc(length);
  bytes.writeUInt32LE(16_385, 0);
  Buffer.from(name).copy(bytes, 4);
  if (length >= 92) bytes.writeUInt32LE(16_390, 88);
  return bytes;
}

test('a row of pg_class names its relation, and the file of it', () => {
  expect(namedRelation(PG_CLASS, row('Bestellungen öä'))).toEqual({
    oid: 16_385,
    name: 'Bestellungen öä',
    relfilenode: 16_390,
  });
  expect(namedRelation(PG_CLASS, row('x'.repeat(63)))?.name).toHaveLength(63);
});

test.each<[string, Uint8Array | undefined]>([
  ['nothing', undefined],
  ['a row that is too short', row('orders', 91)],
  ['a row without a name', row('')],
  ['a name that does not end', row('x'.repeat(64))],
  ['something behind the name', row('orders\0x')],
  ['a name in another encoding', row(Buffer.from([0x6f, 0xfc]))],
])('%s names nothing', (_what, bytes) => {
  expect(namedRelation(PG_CLASS, bytes)).toBeUndefined();
});

test('nor does a row of another relation', () => {
  expect(namedRelation({ ...PG_CLASS, relNumber: 1262 }, row('orders'))).toBeUndefined();
});
