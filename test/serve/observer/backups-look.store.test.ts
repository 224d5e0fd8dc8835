import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Lsn } from '../../../src/lsn.js';
import { lookAtPlace } from '../../../src/serve/observer/backups-look.js';
import { contentOf } from '../../../src/store/content.js';
import { openStore } from '../../store/s3/stores.js';
import { SEGMENT, SYSTEM_ID } from '../../support/archives.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import { scratchDir } from '../../support/scratch.js';
import { storeBackup, tarOf } from '../../support/stored-backup.js';

const rgw = sharedRgw();
const id = '20261127T201500F-3fa91c';

describe.skipIf(!rgw)('a look at the backups of an object store', () => {
  const dir = scratchDir('keys');
  const [accessKeyFile, secretKeyFile] = [join(dir, 'id'), join(dir, 'key')];
  const write = (access: string, secret: string): void => {
    for (const [file, text] of [
      [accessKeyFile, access],
      [secretKeyFile, secret],
    ] as const) {
      writeFileSync(file, `${text}\n`, { mode: 0o600 });
    }
  };
  const look = (bucket: string) =>
    lookAtPlace({
      ...{ kind: 'backups', place: 'minio', directory: '/nowhere', timeout: 120_000 },
      store: {
        ...{ name: 'minio', accessKeyFile, secretKeyFile },
        place: `s3://${bucket}?endpoint=${rgw?.facts.http}`,
      },
    });

  it('takes the keys from their files, and says what can be restored', async () => {
    const bucket = await rgw!.createBucket();
    await using store = openStore(rgw!, bucket);
    write(rgw!.owner.accessKeyId, rgw!.owner.secretAccessKey);
    expect(await look(bucket)).toMatchObject({ backups: [], reaches: [] });
    await store.create('archive.json', contentOf(Buffer.from('{"format":1,"id":"x"}\n')));
    const start = (5n * BigInt(SEGMENT) + 40n) as Lsn;
    const point = (lsn: bigint, time: string) => ({ lsn: lsn as Lsn, timeline: 1, time });
    await storeBackup({
      ...{ store, id, prefix: `systems/${SYSTEM_ID}/` },
      tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
      record: {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT, wal: 'included' },
        start: point(start, '2026-11-27T20:15:00.000Z'),
        end: point(start + 5000n, '2026-11-27T20:16:00.000Z'),
        walRanges: [{ timeline: 1, start, end: (start + 5000n) as Lsn }],
      },
    });
    const { backups, reaches } = await look(bucket);
    expect(backups).toMatchObject([
      { id, place: 'minio', state: 'complete', restorableTo: '2026-11-27T20:16:00.000Z' },
    ]);
    expect(reaches).toMatchObject([{ backup: id, place: 'minio', timeline: 1 }]);
  });

  it('is refused with keys of nobody', async () => {
    const bucket = await rgw!.createBucket();
    write('nobody', 'nOthInG77');
    const told = await look(bucket).then(
      () => '',
      (e: Error) => e.message,
    );
    expect(told).not.toBe('');
    expect(told).not.toContain('nOthInG77');
  });
});
