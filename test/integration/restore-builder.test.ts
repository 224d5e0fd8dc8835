import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { formatLsn, parseLsn } from '../../src/lsn.js';
import { nearQuery } from '../../src/serve/restore/builder.js';
import {
  formatTimestamp,
  parseTimestamp,
  type TimestampTz,
} from '../../src/wal/records/timestamp.js';
import { randomNumbers } from '../support/archives.js';
import { cutOff } from '../support/failover.js';
import {
  NUMBERED,
  type NumberedCommit,
  NumberedRows,
  numbersOf,
} from '../support/numbered-rows.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory } from '../support/receiving.js';
import { askPage, pasted, textOf } from '../support/restore-page.js';
import { handOver, recovered, walkeepDone } from '../support/restoring.js';
import { freePort } from '../support/server-config.js';
import { type ServerEntry, Serving } from '../support/serving.js';
import { waitFor } from '../support/wait.js';

/** Random targets, each restored to with the command of the page. */
const TARGETS = Number(process.env.WALKEEP_RESTORE_TARGETS ?? 6);
const SEED = Number(process.env.WALKEEP_RESTORE_SEED ?? 1);

vi.setConfig({ testTimeout: 300_000 + TARGETS * 30_000, hookTimeout: 300_000 });

/** Commits that nobody archived. */
const IN_GAP = 4;

const archive = archiveDirectory();
let primary: PostgresServer;
let standby: PostgresServer;
let serving: Serving;
let origin: string;
let first: { end: { lsn: string; time: string } };
/** Commits on the way to each timeline, and where on it none is sure to be had. */
const ways: Record<1 | 2, NumberedCommit[]> = { 1: [], 2: [] };
const rows = new NumberedRows();
let beforeGap: NumberedCommit;
let behindGap: { end: { lsn: string; time: string } };

const entry = (server: PostgresServer): ServerEntry => ({
  connection: `host=127.0.0.1 port=${server.port} user=postgres`,
  ...{ directory: archive, slot: 'walkeep', ensure_slot: true, synchronous: true },
});

async function backup(server: PostgresServer) {
  const args = ['backup', '--json', '-d', server.conninfo(), archive];
  const { stdout } = await walkeepDone(args);
  return JSON.parse(stdout.trim().split('\n').at(-1) as string);
}

/** Until all that a server has is in the archive. */
async function archived(server: PostgresServer): Promise<void> {
  const lsn = await server.currentLsn();
  await waitFor(async () => {
    const { position } = (await serving.status('shop')).receiver ?? {};
    return position !== undefined && parseLsn(position.flushed) >= lsn;
  });
}

/** WAL that nobody archived. */
async function gap(server: PostgresServer): Promise<void> {
  await archived(server);
  beforeGap = rows.last;
  await serving.ctl('pause', 'shop');
  await server.configure({ wal_keep_size: '0' });
  await waitFor(() => server.sql("SELECT pg_drop_replication_slot('walkeep')"));
  await rows.add(server, IN_GAP, IN_GAP);
  await server.sql('CHECKPOINT');
  await server.sql('CHECKPOINT');
  await serving.ctl('resume', 'shop');
  await serving.waitState('shop', 'held');
  await serving.ctl('resume', 'shop', '--accept-gap');
  await serving.waitState('shop', 'streaming');
  await server.configure({ wal_keep_size: '256MB' });
}

beforeAll(async () => {
  primary = await PostgresServer.create({ major: 18, settings: NUMBERED });
  await rows.prepare(primary);
  const port = await freePort();
  origin = `http://127.0.0.1:${port}`;
  serving = await Serving.start({ shop: entry(primary) }, { web: { listen: `127.0.0.1:${port}` } });
  await serving.waitState('shop', 'streaming');
  await rows.add(primary, 3);
  first = await backup(primary);
  await rows.add(primary, 10, 3);
  await gap(primary);
  await rows.add(primary, 2);
  behindGap = await backup(primary);
  await rows.add(primary, 8, 2);
  standby = await primary.createStandby();
  await cutOff(primary, standby);
  ways[2].push(...rows.commits);
  await rows.add(primary, 5, 2);
  await archived(primary);
  ways[1].push(...rows.commits);
  await primary.kill9();
  await standby.promote();
  serving.write({ shop: entry(standby) });
  await serving.ctl('reload');
  await serving.waitState('shop', 'streaming');
  const newer = new NumberedRows(1001);
  await newer.add(standby, 6, 2);
  await archived(standby);
  await backup(standby);
  await newer.add(standby, 5, 2);
  await archived(standby);
  ways[2].push(...newer.commits);
  await waitFor(() => existsSync(join(archive, '00000002.history')));
});

afterAll(async () => {
  await serving?.run.stop('SIGKILL');
  await primary?.destroy();
  await standby?.destroy();
});

/** What is asked, and the numbers that a server must have that was restored to it. */
interface Asked {
  params: Record<string, string>;
  /** The last of them; `refused`: there is no such server; `either`: that, or as the page says. */
  expected: NumberedCommit | 'refused' | 'either';
  timeline: 1 | 2;
}

const KINDS = [
  ...(['time', 'gap', 'lsn', 'other timeline', 'before the first', 'latest', 'xid'] as const),
  ...(['exact time', 'future', 'time', 'lsn', 'xid', 'other timeline'] as const),
];

function randomTarget(random: () => number, kind: (typeof KINDS)[number]): Asked {
  const below = (n: number) => Math.floor(random() * n);
  const timeline = kind === 'other timeline' ? 1 : 2;
  const way = ways[timeline];
  const onTimeline = timeline === 1 ? { timeline: '1' } : {};
  const at = below(way.length - 1);
  const one = way[at] as NumberedCommit;
  const next = way[at + 1] as NumberedCommit;
  const before: Record<string, string> = below(3) === 0 ? { before: 'on' } : {};
  const included = before.before ? way[at - 1] : one;
  const answer = (params: Record<string, string>, last: NumberedCommit | undefined): Asked => ({
    params: { ...params, ...onTimeline, action: ['pause', 'promote'][below(2)] as string },
    expected: expectedOf(last, way),
    timeline,
  });
  const time = (at: TimestampTz) => formatTimestamp(at);
  const between = (a: TimestampTz, b: TimestampTz): TimestampTz =>
    (a + BigInt(1 + below(Math.max(1, Number(b - a) - 1)))) as TimestampTz;
  switch (kind) {
    case 'latest':
      return { ...answer({ to: 'latest' }, way.at(-1)), expected: way.at(-1) as NumberedCommit };
    case 'future':
      return { ...answer({ to: '2100-01-01 00:00:00' }, undefined), expected: 'refused' };
    case 'before the first': {
      const [, early] = way as [NumberedCommit, NumberedCommit];
      const to = [time(early.time), formatLsn(early.after), `xid:${early.xid}`][below(3)] as string;
      return { ...answer({ to }, early), expected: 'refused' };
    }
    case 'gap': {
      const inGap = way.filter((c) => c.n > beforeGap.n && c.n <= beforeGap.n + IN_GAP);
      const lost = inGap[1 + below(inGap.length - 2)] as NumberedCommit;
      const to = [time(lost.time), formatLsn(lost.before), `xid:${lost.xid}`][below(3)] as string;
      return { ...answer({ to }, lost), expected: 'refused' };
    }
    case 'exact time':
      return answer({ to: time(one.time), ...before }, included);
    case 'xid':
      return answer({ to: `xid:${one.xid}`, ...before }, included);
    case 'lsn':
      // The record there, or the next one: of what follows a commit none is another.
      return below(2) === 0
        ? answer({ to: formatLsn(one.after), before: 'on' }, one)
        : answer({ to: formatLsn(one.before), before: 'on' }, way[at - 1]);
    default:
      return below(3) === 0
        ? answer({ to: `xid:${one.xid}`, ...before }, included)
        : answer({ to: time(between(one.time, next.time)) }, one);
  }
}

/** What is near the end of a backup, or of WAL, may be had or not: it is of another record. */
function expectedOf(last: NumberedCommit | undefined, way: NumberedCommit[]): Asked['expected'] {
  if (last === undefined || last.before < parseLsn(first.end.lsn)) return 'either';
  const isSure = last.before < beforeGap.before || last.before > parseLsn(behindGap.end.lsn);
  return isSure && last !== way.at(-1) ? last : 'either';
}

const ask = (params: Record<string, string> | URLSearchParams) => askPage(origin, 'shop', params);

it('says where recovery ends, and the command that is copied gets there', async () => {
  handOver(archive);
  const random = randomNumbers(SEED);
  const done = { exact: 0, refused: 0 };
  for (let i = 0; i < TARGETS; i++) {
    const kind = KINDS[i % KINDS.length] as (typeof KINDS)[number];
    const { params, expected, timeline } = randomTarget(random, kind);
    const what = `${i} ${kind} ${JSON.stringify(params)}`;
    const way = ways[timeline];
    const { answer: asked, html } = await ask({ ...params, pgdata: '/srv/data' });
    if (asked.state === 'refused') {
      done.refused += 1;
      expect(['refused', 'either'], what).toContain(typeof expected === 'string' ? expected : what);
      for (const near of [asked.before, asked.after]) {
        if (!near) continue;
        const query = `${nearQuery(asked.query, near)}`;
        expect(textOf(html), what).toContain(`?${query}"`);
        const { answer: instead } = await ask(new URLSearchParams(query));
        expect(instead, what).toMatchObject({ state: 'planned', plan: { lsn: near.lsn } });
      }
      continue;
    }
    if (asked.state !== 'planned') throw new Error(`${what}: ${JSON.stringify(asked)}`);
    expect(expected, what).not.toBe('refused');
    const { last, next } = asked.plan;
    const [lastLsn, nextLsn] = [last, next].map((c) => c && parseLsn(c.lsn));
    // Where nothing was committed since the backup, it is as that has it.
    const to = lastLsn ?? parseLsn(asked.plan.backup.endLsn);
    const said = way.findLast(({ before }) => before <= to) as NumberedCommit;
    if (last) {
      expect(last.xid, what).toBe(said.xid);
      expect(parseTimestamp(last.time), what).toBe(said.time);
    }
    if (typeof expected !== 'string') expect(said.n, what).toBe(expected.n);
    const following = way[way.indexOf(said) + 1];
    // What is in the gap is nowhere.
    expect(next?.xid, what).toBe(said === beforeGap ? undefined : following?.xid);
    if (nextLsn) expect(nextLsn < (following as NumberedCommit).after, what).toBe(true);
    const behind = way.slice(way.indexOf(said) + 1);
    // Those of the gap are lost already.
    const inGap = behind.filter(({ n }) => n > beforeGap.n && n <= beforeGap.n + IN_GAP).length;
    const { lost } = asked.plan;
    expect([lost.isTorn, lost.commits], what).toEqual([inGap > 0, behind.length - inGap]);

    const server = await standby.createRestored(async (dataDir) => {
      const { command } = await ask({ ...params, pgdata: dataDir });
      expect(command, what).toContain('walkeep restore --to=');
      await pasted(command as string);
    });
    try {
      await server.start();
      const ends = params.action === 'promote' || params.to === 'latest';
      if (ends) await recovered(server);
      else {
        await waitFor(async () => {
          const [row] = await server.sql('SELECT pg_get_wal_replay_pause_state() AS s');
          return row?.s === 'paused';
        });
      }
      const numbers = way.slice(0, way.indexOf(said) + 1).map(({ n }) => n);
      expect({ what, numbers: await numbersOf(server) }).toEqual({ what, numbers });
      done.exact += 1;
    } finally {
      await server.destroy();
    }
  }
  expect(done.exact).toBeGreaterThan(0);
  if (process.env.WALKEEP_RESTORE_TARGETS) console.log(JSON.stringify({ seed: SEED, ...done }));
});
