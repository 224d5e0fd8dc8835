import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { mergeBackup } from '../../src/backup/merge.js';
import { ownIdentity } from '../../src/files/process-identity.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { runCli } from '../support/cli.js';
import { ModelTable } from '../support/model-table.js';
import { scratchDir, serverUser } from '../support/scratch.js';
import { storeChain } from '../support/stored-chain.js';

const GEOMETRY = { blockSize: 1024, segmentBlocks: 64 };

/** Root says whom it restores for. */
const OWNER =
  serverUser.uid === undefined ? [] : ['--owner', `${serverUser.uid}:${serverUser.gid}`];

/** A chain that needs no WAL, and what the tables really were. */
async function chained(codec: 'none' | 'gzip') {
  const place = scratchDir('chain');
  const store = await openFileStore(place, { init: true });
  const tables = Array.from({ length: 12 }, (_, n) => {
    const table = new ModelTable(GEOMETRY);
    table.grow(50 + 10 * n);
    for (let b = 0; b < table.length; b++) table.vacuum(b);
    const space = n % 3 === 0 ? 'pg_tblspc/16388/PG_18_202506291/5' : 'base/5';
    return { path: `${space}/${20_000 + n}`, table };
  });
  const backups: Map<string, Buffer>[] = [];
  let real = new Map<string, Buffer>();
  for (let n = 0; n < 4; n++) {
    const made = tables.map(({ path, table }) => table.backUp(path, n === 0));
    const own = new Map([['PG_VERSION', Buffer.from('18\n')]]);
    backups.push(new Map([...own, ...made.flatMap(({ backup }) => [...backup])]));
    real = new Map(made.flatMap((one) => [...one.real]));
    for (const { table } of tables) for (let b = n; b < table.length; b += 7) table.change(b);
    tables[n]?.table.truncate(20);
  }
  const record = { wal: 'included' as const };
  const { records } = await storeChain(backups, { store, geometry: GEOMETRY, codec, record });
  return { place, records, real };
}

test.each(['none', 'gzip'] as const)('threads combine a chain together: %s', async (codec) => {
  const { place, records, real } = await chained(codec);
  const root = join(scratchDir('threads'), 'there');
  const [data, space] = [join(root, 'data'), join(root, 'space')];
  mkdirSync(dirname(data), { recursive: true });
  const command = [
    'restore',
    '-j',
    '3',
    '--restore-command',
    'false',
    ...OWNER,
    '-T',
    `/old/16388=${space}`,
  ];
  const cli = runCli([...command, place, data]);
  const { code } = await cli.exit;
  expect(code, cli.stderr).toBe(0);
  expect(cli.stdout).toContain(records.at(-1)!.id);
  for (const [path, content] of real) {
    const file = path.startsWith('pg_tblspc')
      ? join(space, path.slice('pg_tblspc/16388/'.length))
      : join(data, path);
    expect(readFileSync(file).equals(content), path).toBe(true);
  }
  const files = readdirSync(join(data, 'base/5')).sort();
  const expected = [...real.keys()].filter((path) => path.startsWith('base/5/'));
  expect(files).toEqual(expected.map((path) => path.slice('base/5/'.length)).sort());
});

test('a thread names what is damaged', async () => {
  const { place, records } = await chained('none');
  const path = join(place, 'backups', records[1]!.id, 'base.tar.0000');
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(9000) ^ 1, 9000);
  writeFileSync(path, bytes);
  const root = scratchDir('damaged');
  const command = ['restore', '-j', '2', '--restore-command', 'false', ...OWNER];
  const cli = runCli([...command, '-T', `/old/16388=${root}/s`, place, `${root}/data`]);
  expect((await cli.exit).code).not.toBe(0);
  expect(cli.stderr).toContain(`${records[1]!.id}/base.tar.0000`);
});

test('a merge that was killed is cleaned up by the next', async () => {
  const { place, records } = await chained('none');
  const cli = runCli(['--version']);
  await cli.exit;
  const left = '20261128T020000F-00dead';
  const dir = join(place, 'backups', left);
  mkdirSync(dir);
  const writer = { ...(await ownIdentity()), pid: cli.child.pid };
  writeFileSync(join(dir, 'claim.json'), JSON.stringify({ format: 1, writer }));
  writeFileSync(join(dir, 'base.tar.0000'), 'half');
  const { id, cleaned } = await mergeBackup({ place, id: records.at(-1)!.id });
  expect(cleaned).toEqual([left]);
  const there = readdirSync(join(place, 'backups')).sort();
  expect(there).toEqual([...records.map((one) => one.id), id].sort());
});
