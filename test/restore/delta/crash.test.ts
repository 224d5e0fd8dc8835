import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Lsn } from '../../../src/lsn.js';
import { DELTA_MARKERS, type DeltaMarker } from '../../../src/restore/delta/marker.js';
import { requireMovable, stampOf } from '../../../src/restore/delta/old-wal.js';
import { standingIn } from '../../../src/restore/delta/standing.js';
import type { RestoreFileSystem } from '../../../src/restore/file-system.js';
import { layoutOf } from '../../../src/restore/layout.js';
import type { Held } from '../../../src/restore/marker.js';
import type { DeltaCompared, RestorePlan } from '../../../src/restore/options.js';
import { carryOut } from '../../../src/restore/restore.js';
import { Random } from '../../simulation/random.js';
import { SimulatedTree } from '../../store/simulated-tree.js';
import { IN_PLACE, stored } from '../restorable.js';
import { CATALOG_VERSION, controlFile, deltaBackup } from './fixtures.js';

const DATA = '/walkeep-test/srv/data';
const ONE = '/walkeep-test/spaces/one';
const DROPPED = '/walkeep-test/spaces/dropped';
const WAL = '/walkeep-test/wal';
const VERSION = `PG_18_${CATALOG_VERSION}`;
const STAMP = '20261128T120000Z';
const SETTINGS = ["restore_command = 'x'"];
const SYSTEM = 7_000_000_000_000_000_001n;
/** It does not have the pg_hba.conf of the server: the restore makes one. */
const { base, options } = deltaBackup(SYSTEM, (base) =>
  base.map((one) => (one.name === 'pg_hba.conf' ? { ...one, name: 'notes' } : one)),
);
const others = { ...options.others, outside: Buffer.from('local all all md5\n') };
const { record, reader, index, area } = await stored({ ...options, others });
const ADOPTED = [{ from: '/etc/pg/pg_ident.conf', object: 'outside', to: `${DATA}/pg_ident.conf` }];
const lsn = 0x2000100n as Lsn;
const tablespaces = new Map([[16388, ONE]]);

/** Where its pg_wal is: within the data directory, or a link leads to it. */
type Place = { walDir: string | undefined };

function layoutFor({ walDir }: Place) {
  return layoutOf(record, index, { dataDir: DATA, walDir, tablespaces });
}

async function run(
  fs: RestoreFileSystem,
  { walDir }: Place,
  held?: Held,
): Promise<DeltaCompared | undefined> {
  const layout = layoutFor({ walDir });
  const plan: RestorePlan = {
    ...{ backup: record, place: 'memory:', target: { kind: 'latest' } },
    located: { timeline: 1, lsn, setting: undefined, notes: [], segmentsRead: 0 },
    wal: { from: lsn, to: lsn, segments: 1, first: '', last: '' },
    ...{
      dataDir: DATA,
      walDir,
      polarData: undefined,
      configDir: DATA,
      owner: undefined,
      command: '',
    },
    tablespaces: [
      { oid: 16388, from: '/old/space', to: ONE, inPlace: false },
      { oid: 16389, from: 'pg_tblspc/16389', to: `${DATA}/pg_tblspc/16389`, inPlace: true },
    ],
    ...{ space: [], settings: SETTINGS, signalFile: 'recovery.signal', action: 'pause' },
    ...{ adopted: ADOPTED, state: 'fresh', warnings: [], command: '' },
  };
  const standing = await standingIn(DATA, fs);
  if (!standing) throw new Error('nothing stands there');
  const conditions = { record, layout, places: [], owner: undefined, tablespaces, standby: false };
  const stamp = standing.resumed?.stamp ?? stampOf(new Date('2026-11-28T12:00:00Z'));
  const choice = { record, area, located: plan.located, links: [{ record, area }] };
  const delta = { standing, conditions, stamp, written: new Set(ADOPTED.map(({ to }) => to)) };
  const prepared = { plan, choice, layout, reader, index, command: 'command', delta };
  return carryOut(prepared, { places: [], jobs: 1 }, fs, held);
}

const OLD_WAL = '000000010000000000000002';
const CONTROL = controlFile(SYSTEM, { time: 1_000 });

const PARTLY = (name: string): Buffer => {
  const content = Buffer.from(base.find((one) => one.name === name)?.content as Buffer);
  content[12_000] = (content[12_000] as number) ^ 1;
  return content;
};

/** What the lost server had: some as in the backup, some not, some that the backup does not have. */
const LOST = new Map<string, Buffer | string>([
  ...base
    .filter(({ type }) => !type)
    .filter(({ name }) => !/backup_label|tablespace_map|standby.signal|empty_too/.test(name))
    .map(({ name, content = '' }): [string, Buffer] => [
      `${DATA}/${name}`,
      Buffer.from(content as string),
    ]),
  [`${DATA}/base/5/small`, 'y'],
  [`${DATA}/base/5/large`, Buffer.alloc(40_000, 1)],
  [`${DATA}/base/5/empty`, 'no more'],
  [`${DATA}/base/5/parts`, PARTLY('base/5/parts')],
  [`${DATA}/base/5/grown`, Buffer.concat([PARTLY('base/5/grown'), Buffer.alloc(100)])],
  [`${DATA}/base/5/cut`, PARTLY('base/5/cut').subarray(0, 22_000)],
  [`${DATA}/base/5/stale`, 'stale'],
  [`${DATA}/base/5/pg_internal.init`, 'stale'],
  [`${DATA}/base/6/PG_VERSION`, 'stale'],
  [`${DATA}/base/pgsql_tmp/pgsql_tmp1.0`, 'stale'],
  [`${DATA}/pg_replslot/slot/state`, 'stale'],
  [`${DATA}/pg_stat/pgstat.stat`, 'stale'],
  [`${DATA}/postmaster.opts`, 'stale'],
  [`${DATA}/backup_label.old`, 'stale'],
  [`${DATA}/postgresql.conf`, 'port = 5434\n'],
  [`${DATA}/conf.d/later.conf`, 'port = 5435\n'],
  [`${DATA}/pg_hba.conf`, 'local all all trust\n'],
  [`${DATA}/pg_ident.conf`, '# edited\n'],
  [`${DATA}/log/postgresql.log`, 'why it crashed\n'],
  [`${DATA}/global/pg_control`, CONTROL],
  [`${ONE}/${VERSION}/5/16390`, Buffer.alloc(9000)],
  [`${ONE}/${VERSION}/5/16391`, 'stale'],
  [`${ONE}/PG_15_202209061/5/16390`, 'another cluster'],
  [`${DROPPED}/${VERSION}/5/16400`, 'stale'],
  [`${DROPPED}/PG_15_202209061/5/1`, 'another cluster'],
  [`${DATA}/pg_tblspc/16389/${VERSION}/7`, IN_PLACE[2]?.content ?? ''],
]);

async function lostServer({ walDir }: Place): Promise<SimulatedTree> {
  const tree = new SimulatedTree();
  const { fs } = tree.process(new Random(3));
  const directories = new Set<string>();
  const makeDirectories = async (path: string): Promise<void> => {
    if (path === '' || directories.has(path)) return;
    await makeDirectories(path.slice(0, path.lastIndexOf('/')));
    directories.add(path);
    await fs.mkdir(path, 0o700);
  };
  const write = async (path: string, content: Buffer | string): Promise<void> => {
    await makeDirectories(path.slice(0, path.lastIndexOf('/')));
    const fd = await fs.open(path, 0o102, 0o600);
    await fs.writev(fd, [Buffer.from(content as string)], 0);
    await fs.fsync(fd);
    await fs.close(fd);
  };
  for (const [path, content] of LOST) await write(path, content);
  const wal = walDir ?? `${DATA}/pg_wal`;
  await write(`${wal}/${OLD_WAL}`, 'wal');
  await write(`${wal}/archive_status/${OLD_WAL}.ready`, '');
  if (walDir !== undefined) await fs.symlink(walDir, `${DATA}/pg_wal`);
  await fs.symlink(ONE, `${DATA}/pg_tblspc/16388`);
  await fs.symlink(DROPPED, `${DATA}/pg_tblspc/16395`);
  for (const path of ['/', ...directories]) {
    const fd = await fs.open(path, 0, 0);
    await fs.fsync(fd);
    await fs.close(fd);
  }
  return tree;
}

const text = (tree: SimulatedTree, path: string): string | undefined => {
  const found = tree.find(path);
  return found?.kind === 'file' ? found.bytes.toString('latin1') : undefined;
};

/** The content of all files below a directory, and where links lead. */
function contentOf(tree: SimulatedTree, path: string, into = new Map<string, string>()) {
  const node = tree.find(path);
  if (node?.kind === 'directory') {
    into.set(`${path}/`, '');
    for (const name of node.entries.keys()) contentOf(tree, `${path}/${name}`, into);
  } else if (node) {
    into.set(path, node.kind === 'file' ? node.bytes.toString('latin1') : `-> ${node.to}`);
  }
  return into;
}

/** What a restore into empty directories makes, by the other code. */
async function fresh({ walDir }: Place): Promise<Map<string, string>> {
  const tree = new SimulatedTree();
  const { fs } = tree.process(new Random(4));
  const layout = layoutFor({ walDir });
  const { plan } = await planned({ walDir });
  const choice = { record, area, located: plan.located, links: [{ record, area }] };
  const prepared = { plan, choice, layout, reader, index, command: 'command' };
  await carryOut(prepared, { places: [], jobs: 1 }, fs);
  return contentOf(tree, '/walkeep-test');
}

async function planned({ walDir }: Place): Promise<{ plan: RestorePlan }> {
  return {
    plan: {
      ...{ backup: record, place: 'memory:', target: { kind: 'latest' } },
      located: { timeline: 1, lsn, setting: undefined, notes: [], segmentsRead: 0 },
      wal: { from: lsn, to: lsn, segments: 1, first: '', last: '' },
      ...{
        dataDir: DATA,
        walDir,
        polarData: undefined,
        configDir: DATA,
        owner: undefined,
        command: '',
      },
      tablespaces: [
        { oid: 16388, from: '/old/space', to: ONE, inPlace: false },
        { oid: 16389, from: 'pg_tblspc/16389', to: `${DATA}/pg_tblspc/16389`, inPlace: true },
      ],
      ...{ space: [], settings: SETTINGS, signalFile: 'recovery.signal', action: 'pause' },
      ...{ adopted: ADOPTED, state: 'fresh', warnings: [], command: '' },
    },
  };
}

/** All that the lost server had and a fresh restore would not make. */
const KEPT = ({ walDir }: Place): Record<string, string> => {
  const wal = `${walDir ?? `${DATA}/pg_wal`}.${STAMP}`;
  return {
    [`${wal}/`]: '',
    [`${wal}/${OLD_WAL}`]: 'wal',
    [`${wal}/archive_status/`]: '',
    [`${wal}/archive_status/${OLD_WAL}.ready`]: '',
    [`${DATA}/conf.d/`]: '',
    [`${DATA}/conf.d/later.conf.${STAMP}`]: 'port = 5435\n',
    [`${DATA}/log/`]: '',
    [`${DATA}/log/postgresql.log`]: 'why it crashed\n',
    [`${DATA}/postgresql.conf.${STAMP}`]: 'port = 5434\n',
    [`${DATA}/pg_hba.conf.${STAMP}`]: 'local all all trust\n',
    [`${DATA}/pg_ident.conf.${STAMP}`]: '# edited\n',
    [`${ONE}/PG_15_202209061/`]: '',
    [`${ONE}/PG_15_202209061/5/`]: '',
    [`${ONE}/PG_15_202209061/5/16390`]: 'another cluster',
    [`${DROPPED}/`]: '',
    [`${DROPPED}/PG_15_202209061/`]: '',
    [`${DROPPED}/PG_15_202209061/5/`]: '',
    [`${DROPPED}/PG_15_202209061/5/1`]: 'another cluster',
  };
};

async function expectedIn(place: Place): Promise<Map<string, string>> {
  return new Map([...(await fresh(place)), ...Object.entries(KEPT(place))]);
}

const PLACES: readonly Place[] = [{ walDir: undefined }, { walDir: WAL }];
const expected = new Map(
  await Promise.all(PLACES.map(async (place) => [place, await expectedIn(place)] as const)),
);
const sorted = (content: Map<string, string>) =>
  Object.fromEntries([...content].map(([path, text]) => [path, short(text)] as const).sort());
const short = (text: string) =>
  text.length < 200 ? text : createHash('sha256').update(text).digest('hex');

/**
 * What can be started is all of the one or all of the other. No server starts where pg_wal is not, or
 * leads nowhere.
 */
function expectOneOrOther(tree: SimulatedTree, place: Place): void {
  const control = text(tree, `${DATA}/global/pg_control`);
  if (control === undefined) return;
  const found = contentOf(tree, '/walkeep-test');
  for (const name of ['.walkeep-delta', '.walkeep-delta.tmp']) found.delete(`${DATA}/${name}`);
  if (control !== CONTROL.toString('latin1')) {
    expect(sorted(found)).toEqual(sorted(expected.get(place)!));
    return;
  }
  expectAsLost(tree);
  const wal = place.walDir ?? `${DATA}/pg_wal`;
  const [is, other] = tree.find(wal) ? [wal, `${wal}.${STAMP}`] : [`${wal}.${STAMP}`, wal];
  expect(text(tree, `${is}/${OLD_WAL}`)).toBe('wal');
  expect(tree.find(other)).toBeUndefined();
}

function expectAsLost(tree: SimulatedTree): void {
  for (const [path, content] of LOST) {
    expect(text(tree, path), path).toBe(Buffer.from(content as string).toString('latin1'));
  }
}

async function round(place: Place, seed: number, at: number, power: boolean): Promise<boolean> {
  const random = new Random(seed);
  const tree = await lostServer(place);
  const process = tree.process(random, at, random.pick(['before', 'after'] as const));
  const ended = await Promise.race([run(process.fs, place).then(() => 'done'), process.death]);
  if (power) tree.cutPower(random);
  expectOneOrOther(tree, place);
  const isDone = () =>
    text(tree, `${DATA}/global/pg_control`) === controlFile(SYSTEM).toString('latin1') &&
    !tree.find(`${DATA}/.walkeep-delta`);
  if (ended === 'done') expect(isDone()).toBe(true);
  else if (!isDone()) {
    // A second one dies somewhere, too.
    const second = tree.process(random, random.below(400));
    await Promise.race([run(second.fs, place), second.death]);
    if (power) tree.cutPower(random);
    expectOneOrOther(tree, place);
  }
  if (!isDone()) await run(tree.process(random).fs, place);
  expect(sorted(contentOf(tree, '/walkeep-test'))).toEqual(sorted(expected.get(place)!));
  return ended !== 'done';
}

/** Each call, or with every so many one of them. */
const EVERY = process.env.WALKEEP_DELTA_CALLS === 'all' ? 1 : 4;

describe('a delta restore', () => {
  it.each(PLACES)("makes what a restore makes, and keeps what is people's: %j", async (place) => {
    const tree = await lostServer(place);
    const compared = await run(tree.process(new Random(1)).fs, place);
    expect(sorted(contentOf(tree, '/walkeep-test'))).toEqual(sorted(expected.get(place)!));
    expect(compared?.kept.map(({ path }) => path).sort()).toEqual([
      `${DATA}/conf.d/later.conf`,
      `${DATA}/pg_hba.conf`,
      `${DATA}/pg_ident.conf`,
      `${DATA}/postgresql.conf`,
    ]);
    expect(compared?.same.files).toBeGreaterThan(3);
    expect(compared?.removed.files).toBeGreaterThan(8);
    // Of large files no more than the frames in which something differs, or is another file's too.
    expect(compared?.same.bytes).toBeGreaterThan(25_000);
    expect(compared?.same.bytes).toBeLessThan(60_000);
  });

  for (const power of [false, true]) {
    it(`that dies at any call is made by the next run${power ? ', also without power' : ''}`, async () => {
      for (const place of PLACES) {
        const whole = (await lostServer(place)).process(new Random(1));
        await run(whole.fs, place);
        expect(whole.calls).toBeGreaterThan(250);
        let died = 0;
        for (let at = 1 + Number(power); at <= whole.calls; at += EVERY) {
          died += Number(await round(place, 1000 + at, at, power));
        }
        expect(died).toBeGreaterThan((0.8 * whole.calls) / EVERY);
      }
    });
  }

  it('leaves the marker of another one that has begun since', async () => {
    const tree = await lostServer(PLACES[0]!);
    const { fs } = tree.process(new Random(1));
    const marker: DeltaMarker = {
      ...{ format: 1, token: 'another', backup: 'b', systemId: String(SYSTEM) },
      ...{ catalogVersion: CATALOG_VERSION, roots: [DATA], stamp: STAMP },
    };
    const leaveNoName = () => DELTA_MARKERS.write(DATA, marker, fs);
    await run(fs, PLACES[0]!, { confirm: async () => {}, leaveNoName });
    expect(await DELTA_MARKERS.read(DATA, fs)).toEqual(marker);
    await DELTA_MARKERS.remove(DATA, 'another', fs);
    expect(await DELTA_MARKERS.read(DATA, fs)).toBeUndefined();
  });

  it.each(PLACES)('that cannot put pg_wal aside leaves all as it was: %j', async (place) => {
    const tree = await lostServer(place);
    const before = sorted(contentOf(tree, '/walkeep-test'));
    const { fs } = tree.process(new Random(1));
    for (const code of ['EBUSY', 'EXDEV']) {
      const rename = async (from: string, to: string): Promise<void> => {
        const isWal = from === (place.walDir ?? `${DATA}/pg_wal`);
        if (isWal) throw Object.assign(new Error(code), { code });
        await fs.rename(from, to);
      };
      await expect(run({ ...fs, rename }, place)).rejects.toMatchObject({
        code: 'WK_TARGET',
        hint: expect.stringMatching(place.walDir ? /^Give another.*--waldir/ : /^Mount it/),
      });
      expect(sorted(contentOf(tree, '/walkeep-test'))).toEqual(before);
    }
    const failing = async (): Promise<void> => {
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    };
    for (const suffix of ['/pg_wal', '/wal', '/global/pg_control']) {
      const rename = (from: string, to: string) =>
        from.endsWith(suffix) ? failing() : fs.rename(from, to);
      if (suffix === (place.walDir ? '/pg_wal' : '/wal')) continue;
      await expect(run({ ...fs, rename }, place)).rejects.toMatchObject({ code: 'WK_STORAGE' });
      expect(sorted(contentOf(tree, '/walkeep-test'))).toEqual(before);
    }
  });

  it.skipIf(process.platform !== 'linux')('is refused where pg_wal is a mount', async () => {
    await expect(requireMovable('/proc', false)).rejects.toMatchObject({
      code: 'WK_TARGET',
      hint: expect.stringContaining('link'),
    });
    await expect(requireMovable('/proc', true)).rejects.toMatchObject({
      hint: expect.stringMatching(/^Give another/),
    });
  });

  it('that was cut short is no directory for a restore without --delta', async () => {
    const place = PLACES[0]!;
    const tree = await lostServer(place);
    const random = new Random(5);
    const process = tree.process(random, 200);
    await Promise.race([run(process.fs, place), process.death]);
    expect(tree.find(`${DATA}/.walkeep-delta`)).toBeDefined();
    const before = sorted(contentOf(tree, '/walkeep-test'));
    const { plan } = await planned(place);
    const choice = { record, area, located: plan.located, links: [{ record, area }] };
    const prepared = { plan, choice, layout: layoutFor(place), reader, index, command: 'command' };
    const again = carryOut(prepared, { places: [], jobs: 1 }, tree.process(random).fs);
    await expect(again).rejects.toMatchObject({
      code: 'WK_TARGET',
      message: expect.stringContaining('cut short'),
    });
    expect(sorted(contentOf(tree, '/walkeep-test'))).toEqual(before);
  });
});
