import { describe, expect, it } from 'vitest';
import type { Lsn } from '../../src/lsn.js';
import type { RestoreFileSystem } from '../../src/restore/file-system.js';
import { layoutOf } from '../../src/restore/layout.js';
import type { RestorePlan } from '../../src/restore/options.js';
import { carryOut } from '../../src/restore/restore.js';
import { Random } from '../simulation/random.js';
import { SimulatedTree } from '../store/simulated-tree.js';
import { BASE, IN_PLACE, SPACE, stored } from './restorable.js';

const DATA = '/srv/data';
const SETTINGS = ["restore_command = 'x'", "recovery_target_timeline = '1'"];
const { record, reader, index, area } = await stored();
const roots = {
  dataDir: DATA,
  walDir: '/wal',
  tablespaces: new Map([[16388, '/spaces/one']]),
};
const layout = layoutOf(record, index, roots);
const lsn = 0x2000100n as Lsn;
const plan: RestorePlan = {
  ...{ backup: record, place: 'memory:', target: { kind: 'latest' } },
  located: { timeline: 1, lsn, setting: undefined, notes: [], segmentsRead: 0 },
  wal: { from: lsn, to: lsn, segments: 1, first: '', last: '' },
  ...{ dataDir: DATA, walDir: '/wal', polarData: undefined, configDir: DATA, owner: undefined },
  tablespaces: [
    { oid: 16388, from: '/old/space', to: '/spaces/one', inPlace: false },
    { oid: 16389, from: 'pg_tblspc/16389', to: `${DATA}/pg_tblspc/16389`, inPlace: true },
  ],
  ...{ space: [], settings: SETTINGS, signalFile: 'recovery.signal', action: 'pause' },
  ...{ adopted: [], state: 'fresh', warnings: [], command: '' },
};
const choice = { record, area, located: plan.located, links: [{ record, area }] };

async function run(fs: RestoreFileSystem): Promise<void> {
  const prepared = { plan, choice, layout, reader, index, command: 'command' };
  await carryOut(prepared, { places: [], jobs: 1 }, fs);
}

const files = (root: string, members: typeof BASE) =>
  members
    .filter(({ type }) => !type)
    .map(({ name, content = '' }): [string, Buffer] => [
      `${root}/${name}`,
      Buffer.from(content as string),
    ]);

/** Everything that must be where it is, with its content. */
const EXPECTED = new Map<string, Buffer | string>([
  ...files(DATA, BASE).filter(([path]) => !/replslot|postmaster|signal/.test(path)),
  ...files('/spaces/one', SPACE),
  ...files(`${DATA}/pg_tblspc/16389`, IN_PLACE),
  [`${DATA}/tablespace_map`, '16388 /spaces/one\n'],
  [
    `${DATA}/postgresql.auto.conf`,
    `# kept\nwork_mem = '8MB'\n# walkeep restore begin\n${SETTINGS.join('\n')}\n# walkeep restore end\n`,
  ],
  [`${DATA}/postgresql.conf`, "port = 5433\n#data_directory = '/old'  # walkeep restore\n"],
  [`${DATA}/recovery.signal`, ''],
]);

function expectWhole(tree: SimulatedTree): void {
  for (const [path, content] of EXPECTED) {
    const found = tree.find(path);
    expect(found?.kind, path).toBe('file');
    if (found?.kind !== 'file') continue;
    expect(found.bytes.equals(Buffer.from(content as string)), path).toBe(true);
  }
  expect(tree.find(`${DATA}/pg_wal`)).toMatchObject({ kind: 'link', to: '/wal' });
  expect(tree.find(`${DATA}/pg_tblspc/16388`)).toMatchObject({ kind: 'link', to: '/spaces/one' });
  for (const path of ['/wal/archive_status', `${DATA}/pg_replslot`]) {
    expect(tree.find(path)?.kind, path).toBe('directory');
  }
}

function startable(tree: SimulatedTree): boolean {
  return tree.find(`${DATA}/global/pg_control`) !== undefined;
}

/** @returns whether the run died. */
async function round(seed: number, at: number, power: boolean): Promise<boolean> {
  const random = new Random(seed);
  const tree = new SimulatedTree();
  const process = tree.process(random, at, random.pick(['before', 'after'] as const));
  const ended = await Promise.race([run(process.fs).then(() => 'done'), process.death]);
  if (power) tree.cutPower(random);
  // What can be started is all there, also when the power was lost a moment later.
  if (startable(tree)) expectWhole(tree);
  if (ended === 'done') {
    expect(startable(tree)).toBe(true);
    return false;
  }
  // A second one dies somewhere, too.
  const isDone = () => startable(tree) && !tree.find(`${DATA}/.walkeep-restore`);
  if (!isDone()) {
    const second = tree.process(random, random.below(300));
    await Promise.race([run(second.fs), second.death]);
    if (power) tree.cutPower(random);
    if (startable(tree)) expectWhole(tree);
  }
  if (!isDone()) await run(tree.process(random).fs);
  expect(startable(tree)).toBe(true);
  expectWhole(tree);
  for (const path of [DATA, '/wal', '/spaces/one']) {
    expect(tree.find(`${path}/.walkeep-restore`), path).toBeUndefined();
  }
  expect(tree.find(`${DATA}/global/pg_control.walkeep-restore`)).toBeUndefined();
  expect(tree.find(`${DATA}/postmaster.pid`)).toBeUndefined();
  expect(tree.find(`${DATA}/standby.signal`)).toBeUndefined();
  return true;
}

describe('a restore that dies at any call', () => {
  for (const power of [false, true]) {
    it(`cannot be started, and is made by the next run${power ? ', also without power' : ''}`, async () => {
      const whole = new SimulatedTree().process(new Random(1));
      await run(whole.fs);
      expect(whole.calls).toBeGreaterThan(200);
      let died = 0;
      for (let at = 1; at <= whole.calls; at++) died += Number(await round(1000 + at, at, power));
      // A call that fails as it should does not end it.
      expect(died).toBeGreaterThan(0.8 * whole.calls);
    });
  }

  it('says after a failed fsync that memory is no proof of the disk', async () => {
    const { fs } = new SimulatedTree().process(new Random(1));
    const fsync = async (): Promise<void> => {
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    };
    await expect(run({ ...fs, fsync })).rejects.toMatchObject({
      code: 'WK_FSYNC',
      hint: expect.stringMatching(/reboot .* or restore into another, empty directory/),
    });
  });

  it('never touches what it did not make', async () => {
    const random = new Random(1);
    const tree = new SimulatedTree();
    const { fs } = tree.process(random);
    await fs.mkdir('/srv', 0o700);
    await fs.mkdir(DATA, 0o700);
    await fs.mkdir('/spaces', 0o700);
    await fs.mkdir('/spaces/one', 0o700);
    await fs.mkdir('/spaces/one/theirs', 0o700);
    await expect(run(fs)).rejects.toMatchObject({ code: 'WK_TARGET', path: '/spaces/one' });
    expect(await fs.readdir(DATA)).toEqual([]);
    expect(await fs.readdir('/spaces/one')).toHaveLength(1);
  });
});
