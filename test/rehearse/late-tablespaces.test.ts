import { expect, it } from 'vitest';
import { parseTablespaceCreate } from '../../src/rehearse/late-tablespaces.js';

const record = (oid: number, path: string) => {
  const bytes = Buffer.alloc(4 + Buffer.byteLength(path) + 1);
  bytes.writeUInt32LE(oid);
  bytes.write(path, 4);
  return bytes;
};

it('reads where a tablespace is made', () => {
  expect(parseTablespaceCreate(record(16400, '/srv/späce one'))).toEqual({
    ...{ oid: 16400, location: '/srv/späce one' },
  });
});

it('passes over one in the data directory, and what is too short', () => {
  expect(parseTablespaceCreate(record(16400, ''))).toBeUndefined();
  expect(parseTablespaceCreate(Buffer.alloc(3))).toBeUndefined();
});
