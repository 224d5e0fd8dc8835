/**
 * Makes testdata/wal: small WAL of real servers, one directory a case. To run it again:
 *
 *   npx tsc -p testdata && node node_modules/.cache/testdata/testdata/make.js [case…]
 *
 * A case holds segments of 1 MB as `<name>.gz` (the last one `<name>.partial.gz`: what the server
 * had flushed, zeros behind it), `case.json` (see WalCase) and, where a pg_waldump of the server's
 * version is installed, `records.txt.gz`: `rmgr length xid lsn prev` of each record that it read.
 */
import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { floorToSegment, segmentFileName, segmentOf } from '../src/wal/file-name.js';
import { formatLsn, type Lsn, parseLsn } from '../src/wal/lsn.js';
import { MAJORS, type Major, PostgresServer } from '../test/support/postgres.js';
import { packageRoot, scratchDir } from '../test/support/scratch.js';
import { findTool } from '../test/support/tools.js';

const run = promisify(execFile);
const SEGMENT = 1024 * 1024;
const PAGE = 8192;
const OUT = join(packageRoot, 'testdata', 'wal');

/** Contents of case.json. */
interface WalCase {
  what: string;
  major: number;
  segmentSize: number;
  systemId: string;
  /** Position of the server when the WAL was copied: the valid end. */
  end: string;
  [extra: string]: unknown;
}

type Session = Awaited<ReturnType<PostgresServer['client']>>;

const insertLsn = async (client: Session): Promise<Lsn> =>
  parseLsn((await client.query('SELECT pg_current_wal_insert_lsn() AS lsn')).rows[0].lsn);

const message = (client: Session, bytes: number, transactional = false) =>
  client.query("SELECT pg_logical_emit_message($1::bool, 'p', repeat('x', $2::int))", [
    transactional,
    bytes,
  ]);

/** Fills WAL with messages until the next record starts at `offset` modulo `unit`. */
async function fillTo(client: Session, offset: number, unit: number): Promise<Lsn> {
  // A message of n bytes with a prefix of one makes a record of n + 55 where that exceeds 255.
  const overhead = 55;
  for (let tries = 0; tries < 50; tries++) {
    const lsn = await insertLsn(client);
    const at = Number(lsn % BigInt(unit));
    if (at === offset) return lsn;
    const gap = (offset - at + unit) % unit;
    const inPage = PAGE - Number(lsn % BigInt(PAGE));
    // Exact only inside one page; farther away, go as far as the page before is sure.
    if (gap <= inPage && gap >= 400) await message(client, gap - overhead);
    else if (gap > 3 * PAGE) await message(client, Math.floor((gap - 2 * PAGE) * 0.99));
    else await message(client, Math.min(inPage, 1000));
  }
  throw new Error(`the next record cannot be made to start at ${offset} of ${unit}`);
}

/** Writes a case: the WAL of `server` from the segment of `from` to its flushed position. */
async function save(
  name: string,
  server: PostgresServer,
  from: Lsn,
  what: string,
  extra: Record<string, unknown> = {},
  timelineAt: (lsn: bigint) => number = () => 1,
): Promise<void> {
  const dir = join(OUT, name);
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  const plain = scratchDir('plain');
  const end = await server.currentLsn();
  const names: string[] = [];
  for (let at = floorToSegment(from, SEGMENT) as bigint; at < end; at += BigInt(SEGMENT)) {
    const file = segmentFileName(timelineAt(at), segmentOf(at, SEGMENT), SEGMENT);
    const bytes = await readFile(join(server.dataDir, 'pg_wal', file));
    const partial = at + BigInt(SEGMENT) > end;
    if (partial) bytes.fill(0, Number(end - at));
    await writeFile(join(plain, file), bytes);
    const zipped = gzipSync(bytes, { level: 9 });
    await writeFile(join(dir, `${file}${partial ? '.partial' : ''}.gz`), zipped);
    names.push(file);
  }
  const systemId = await server.systemIdentifier();
  const info: WalCase = {
    what,
    major: server.major,
    segmentSize: SEGMENT,
    systemId,
    end: formatLsn(end),
    ...extra,
  };
  await writeFile(join(dir, 'case.json'), `${JSON.stringify(info, null, 2)}\n`);
  const waldump = findTool('pg_waldump', server.major);
  // pg_waldump looks for one timeline only: the newest, from its first segment on.
  const newest = names.filter((n) => n.slice(0, 8) === names.at(-1)?.slice(0, 8));
  if (waldump) await saveRecords(waldump, plain, newest, dir);
  console.log(`${name}: ${names.length} segments to ${formatLsn(end)}`);
}

async function saveRecords(waldump: string, plain: string, names: string[], dir: string) {
  const args = ['-p', plain, names[0] as string, names.at(-1) as string];
  // It exits with 1 where the WAL ends.
  const { stdout } = await run(waldump, args, { maxBuffer: 2 ** 30 }).catch((error) => error);
  const line =
    /^rmgr: (\w+) +len \(rec\/tot\): +\d+\/ *(\d+), tx: +(\d+), lsn: (\S+), prev (\S+),/gm;
  const records = [...stdout.matchAll(line)].map((m) => m.slice(1, 6).join(' '));
  await writeFile(join(dir, 'records.txt.gz'), gzipSync(`${records.join('\n')}\n`, { level: 9 }));
}

const quiet = {
  wal_level: 'logical',
  autovacuum: 'off',
  checkpoint_timeout: '1h',
  // Segments are copied at the end: none may be removed or recycled before.
  wal_keep_size: '1GB',
  max_wal_size: '1GB',
  max_prepared_transactions: '5',
  track_commit_timestamp: 'on',
};

/** A server whose next record begins a segment, nearly. */
async function freshServer(major: Major = 15): Promise<{ server: PostgresServer; from: Lsn }> {
  const server = await PostgresServer.create({ major, settings: quiet });
  await server.switchWal();
  return { server, from: await server.currentLsn() };
}

const MIXED = `
  CREATE TABLE m (id int PRIMARY KEY, t text, p point, big text);
  ALTER TABLE m ALTER COLUMN big SET STORAGE EXTERNAL;
  CREATE INDEX ON m (t); CREATE INDEX ON m USING hash (id); CREATE INDEX ON m USING brin (id);
  CREATE INDEX ON m USING gist (p); CREATE INDEX ON m USING spgist (p);
  CREATE INDEX ON m USING gin (to_tsvector('simple', t));
  CREATE SEQUENCE s;
  INSERT INTO m SELECT nextval('s'), 'word' || i % 7, point(i, i % 9), NULL
    FROM generate_series(1, 200) i;
  CHECKPOINT;
  UPDATE m SET t = 'new ' || id WHERE id % 11 = 0;
  UPDATE m SET big = repeat('toast', 3000) WHERE id = 1;
  DELETE FROM m WHERE id % 13 = 0;
  BEGIN; INSERT INTO m VALUES (1001, 'a'); SAVEPOINT a; INSERT INTO m VALUES (1002, 'b');
  ROLLBACK TO a; SAVEPOINT b; INSERT INTO m VALUES (1003, 'c'); COMMIT;
  BEGIN; INSERT INTO m VALUES (1004, 'd'); PREPARE TRANSACTION 'one'; COMMIT PREPARED 'one';
  BEGIN; INSERT INTO m VALUES (1005, 'e'); PREPARE TRANSACTION 'two'; ROLLBACK PREPARED 'two';
  BEGIN; INSERT INTO m VALUES (1006, 'f'); ROLLBACK;
  BEGIN; SELECT * FROM m WHERE id = 2 FOR SHARE; COMMIT;
  VACUUM (FREEZE) m;
  SELECT pg_logical_emit_message(true, 'walkeep', repeat('y', 9000));
  SELECT pg_create_restore_point('before the drop');
  CREATE TABLE gone AS SELECT 1 AS a; TRUNCATE gone; DROP TABLE gone;`;

/** Every wal_compression that this server was built with, each over one checkpoint's images. */
async function compressions(client: Session): Promise<void> {
  for (const method of ['on', 'pglz', 'lz4', 'zstd', 'off']) {
    try {
      await client.query(`SET wal_compression = ${method}`);
    } catch {
      continue;
    }
    await client.query('CHECKPOINT');
    await client.query("UPDATE m SET t = t || '.' WHERE id < 15");
  }
}

const cases: Record<string, () => Promise<void>> = {
  ...Object.fromEntries(
    MAJORS.map((major) => [
      `mixed-${major}`,
      async () => {
        const { server, from } = await freshServer(major);
        const client = await server.client();
        for (const statement of MIXED.split(';')) await client.query(statement);
        await compressions(client);
        await save(`mixed-${major}`, server, from, 'records of many resource managers');
        await server.destroy();
      },
    ]),
  ),

  'record-across-segments': async () => {
    const { server, from } = await freshServer();
    const client = await server.client();
    await message(client, 2_500_000);
    await message(client, 10, true);
    await save('record-across-segments', server, from, 'one record over four segments');
    await server.destroy();
  },

  'record-header-across-pages': async () => {
    const { server, from } = await freshServer();
    const client = await server.client();
    for (const [offset, unit] of [
      [PAGE - 8, PAGE],
      [PAGE - 16, PAGE],
      [PAGE - 24, PAGE],
      [SEGMENT - 8, SEGMENT],
    ] as const) {
      await fillTo(client, offset, unit);
      await message(client, 10);
    }
    await message(client, 10, true);
    const what = 'record headers cut after 8, 16 and 24 bytes by a page, after 8 by a segment';
    await save('record-header-across-pages', server, from, what);
    await server.destroy();
  },

  switch: async () => {
    const { server, from } = await freshServer();
    const client = await server.client();
    await message(client, 10);
    const switches: string[] = [];
    for (const [offset, unit] of [
      [2048, PAGE],
      [PAGE - 24, PAGE],
      [PAGE - 8, PAGE],
      [SEGMENT - 24, SEGMENT],
      [SEGMENT - 8, SEGMENT],
    ] as const) {
      switches.push(formatLsn(await fillTo(client, offset, unit)));
      await client.query('SELECT pg_switch_wal()');
      await message(client, 10);
    }
    await message(client, 10, true);
    const what =
      'XLOG_SWITCH in a page, up to the end of a page, cut by a page, up to the end of a segment, cut by a segment';
    await save('switch', server, from, what, { switches });
    await server.destroy();
  },

  'overwritten-contrecord': async () => {
    const { server, from } = await freshServer();
    const client = await server.client();
    await message(client, 10);
    const aborted = await insertLsn(client);
    await message(client, 30_000);
    await message(client, 10, true);
    await server.kill9();
    // The rest of the record never reached the disk.
    const missing = (aborted / BigInt(PAGE) + 2n) * BigInt(PAGE);
    const file = join(
      server.dataDir,
      'pg_wal',
      segmentFileName(1, segmentOf(missing, SEGMENT), SEGMENT),
    );
    const bytes = await readFile(file);
    bytes.fill(0, Number(missing % BigInt(SEGMENT)));
    await writeFile(file, bytes);
    await server.start();
    await server.sql('CREATE TABLE after (a int)');
    const extra = { aborted: formatLsn(aborted), missing: formatLsn(missing) };
    const what = 'a record lost its rest in a crash and was declared void';
    await save('overwritten-contrecord', server, from, what, extra);
    await server.destroy();
  },

  promoted: async () => {
    const { server, from } = await freshServer();
    const standby = await server.createStandby();
    await server.sql('CREATE TABLE old (a int)');
    await server.sql('SELECT pg_switch_wal()');
    await server.sql('INSERT INTO old SELECT generate_series(1, 3000)');
    await server.stop('fast');
    await standby.promote();
    await standby.sql('INSERT INTO old SELECT generate_series(1, 3000)');
    const history = '00000002.history';
    const text = await readFile(join(standby.dataDir, 'pg_wal', history), 'utf8');
    const end = parseLsn((text.split('\t')[1] as string).trim());
    await save(
      'promoted',
      standby,
      from,
      'a new timeline whose first segment begins with pages of the old one',
      { switchPoint: formatLsn(end) },
      (lsn) => (lsn < floorToSegment(end, SEGMENT) ? 1 : 2),
    );
    await writeFile(join(OUT, 'promoted', basename(history)), text);
    await standby.destroy();
    await server.destroy();
  },
};

const wanted = process.argv.slice(2);
for (const [name, make] of Object.entries(cases)) {
  if (wanted.length === 0 || wanted.includes(name)) await make();
}
