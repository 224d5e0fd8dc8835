import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fetchFile } from '../../src/fetch/fetch.js';
import type { Lsn } from '../../src/lsn.js';
import { pushFile } from '../../src/push/push.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { parseSegmentFileName, segmentStart } from '../../src/wal/file-name.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import { randomNumbers } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { CommitClients } from '../support/commit-clients.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { receive, writeWal } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';

/**
 * WAL of servers that were killed at random: nothing in it may be called bad, and of the flips of
 * single bits all that PostgreSQL notices must be found. `WALKEEP_KILLS=100 WALKEEP_FLIPS=10000`
 * for the full run, `WALKEEP_KILL_SEED` repeats one as far as a server can be.
 */
const KILLS = Number(process.env.WALKEEP_KILLS ?? 3);
const FLIPS = Number(process.env.WALKEEP_FLIPS ?? 100);
const SEED = Number(process.env.WALKEEP_KILL_SEED ?? Date.now() % 100_000);
const keep = disposer();

const complete = (directory: string) =>
  readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort();

/** Has a server write, switch and back up until it is killed in the middle of it. */
async function killAtRandom(server: PostgresServer, random: () => number): Promise<void> {
  const clients = new CommitClients(() => server);
  const session = async () => {
    const client = await server.client();
    for (;;) {
      const kind = random();
      if (kind < 0.5) await client.query('SELECT pg_switch_wal()');
      else if (kind < 0.55) await client.query('CHECKPOINT');
      await client.query("SELECT pg_logical_emit_message(false, 'x', repeat('y', $1))", [
        Math.floor(random() ** 3 * 400_000),
      ]);
    }
  };
  const running = session().catch(() => {});
  const backup = random() < 0.2 ? server.baseBackup().catch(() => {}) : undefined;
  const enough = 5 + Math.floor(random() * 300);
  await waitFor(() => clients.confirmed.length >= enough, { intervalMs: 1, timeoutMs: 60_000 });
  await server.kill9();
  await Promise.all([clients.stop(), running, backup]);
}

test.each(MAJORS)(
  `nothing in the WAL of a server that was killed ${KILLS} times is called bad (PostgreSQL %i)`,
  async (major) => {
    const random = randomNumbers(SEED);
    const server = keep(
      await PostgresServer.create({
        major,
        // A process of Node for each segment would not keep up with what is switched here.
        archive: true,
        settings: {
          ...{ wal_buffers: '64kB', max_wal_size: '16MB', min_wal_size: '8MB', wal_keep_size: '0' },
        },
      }),
    );
    await server.sql("SELECT pg_create_physical_replication_slot('s', true)");
    await server.sql('CREATE TABLE t (n int, note text)');
    await server.sql('CREATE INDEX ON t (n)');
    const directory = scratchDir('wal');
    const run = keep(receive(directory, server.conninfo(), ['-S', 's', '--synchronous']));
    await run.waitForOutput(/starting log streaming/);
    for (let kill = 0; kill < KILLS; kill++) {
      await killAtRandom(server, random);
      await server.start();
    }
    await writeWal(server, 3_000_000);
    const last = await server.switchWal();
    await waitFor(() => complete(directory).at(-1) === last, {
      what: `${last} to be received`,
      timeoutMs: 60_000,
    }).catch((error) => {
      throw new Error(`${error.message}\n${run.stderr}`);
    });
    await server.waitArchived(last, 120_000);
    expect((await run.stop()).code).toBe(0);
    expect(run.stderr).not.toMatch(/WK_REFILL|lost acknowledged|damaged|other bytes/);
    const pushed = scratchDir('wal');
    const names = complete(server.archiveDir);
    for (const name of names) {
      const { outcome } = await pushFile(pushed, join(server.archiveDir, name));
      expect(outcome, name).toBe('stored');
    }
    const target = join(scratchDir('fetched'), 'file');
    for (const archive of [directory, pushed]) {
      const { findings } = await verifyArchive(archive);
      expect(findings.filter((f) => f.severity !== 'info')).toEqual([]);
      for (const name of complete(archive)) {
        expect(await fetchFile({ places: [archive], name, target }), name).toMatchObject({
          found: true,
        });
      }
    }
    for (const name of complete(directory)) {
      const { outcome } = await pushFile(pushed, join(directory, name));
      expect(outcome, name).toMatch(/stored|present/);
    }
    const waldump = findTool('pg_waldump', major);
    if (waldump) {
      execFileSync(waldump, ['-q', '-p', pushed, names[0]!, last]);
      findsFlips(pushed, names, waldump, random);
    }
    console.log(`PostgreSQL ${major}, seed ${SEED}: ${names.length} segments, ${KILLS} kills`);
  },
  240_000 + KILLS * 20_000 + FLIPS * 100,
);

/** Flips single bits: what the check lets pass, pg_waldump must let pass as well. */
function findsFlips(
  directory: string,
  names: readonly string[],
  waldump: string,
  random: () => number,
): void {
  const scratch = scratchDir('flips');
  let found = 0;
  let passed = 0;
  let unusedTried = 0;
  while (found < FLIPS) {
    const i = 1 + Math.floor(random() * (names.length - 2));
    const part = names.slice(i - 1, i + 2);
    const bytes = Buffer.concat(part.map((name) => readFileSync(join(directory, name))));
    const check = new MiddleCheck(bytes, part[0]!);
    for (const name of part) copyFileSync(join(directory, name), join(scratch, name));
    for (let n = 0; n < 50 && found < FLIPS; n++) {
      const at = SIZE + Math.floor(random() * SIZE);
      const bit = 1 << Math.floor(random() * 8);
      const unused = check.isUnused(at);
      // Of these a few are enough: the oracle takes its time.
      if (unused && unusedTried++ >= 20) continue;
      bytes[at] = bytes[at]! ^ bit;
      if (check.findsFault()) {
        expect(unused).toBe(false);
        found += 1;
      } else {
        passed += 1;
        const path = join(scratch, part[1]!);
        writeFileSync(path, bytes.subarray(SIZE, 2 * SIZE));
        const { status, stderr } = spawnSync(waldump, ['-q', '-p', scratch, part[0]!, part[2]!]);
        expect(status, `${part[1]} ${at - SIZE} ^ ${bit}: ${stderr}`).toBe(0);
        copyFileSync(join(directory, part[1]!), path);
      }
      bytes[at] = bytes[at]! ^ bit;
    }
  }
  console.log(`${found} flipped bits found; ${passed} let pass, as pg_waldump does`);
}

const SIZE = 1 << 20;

/** Checks the middle one of three segments: from the record that leads into it to the one behind. */
class MiddleCheck {
  readonly #bytes: Buffer;
  readonly #start: bigint;
  readonly #from: number;

  constructor(bytes: Buffer, first: string) {
    this.#bytes = bytes;
    this.#start = segmentStart(parseSegmentFileName(first, SIZE)!.segment, SIZE);
    const leads = [8, 64, 512].map((pages) => SIZE - pages * 1024);
    this.#from = leads.find((from) => this.#leadsIn(from)) ?? 0;
  }

  #verifier(from: number): WalVerifier {
    const startLsn = (this.#start + BigInt(from)) as Lsn;
    return new WalVerifier({ startLsn, segmentSize: SIZE, timeline: 1 });
  }

  /** True if a record that goes on in the middle segment begins behind `from`. */
  #leadsIn(from: number): boolean {
    const verifier = this.#verifier(from);
    return !verifier.feed(this.#bytes, from, SIZE) && !verifier.isSkipping;
  }

  isUnused(at: number): boolean {
    const verifier = this.#verifier(this.#from);
    verifier.feed(this.#bytes, this.#from, at);
    return verifier.unused > 0;
  }

  findsFault(): boolean {
    const verifier = this.#verifier(this.#from);
    verifier.feed(this.#bytes, this.#from, 2 * SIZE);
    const end = this.#start + BigInt(2 * SIZE);
    for (let at = 2 * SIZE; at < 3 * SIZE && !verifier.fault && verifier.validEnd <= end; ) {
      const next = at + 8192;
      verifier.feed(this.#bytes, at, next);
      at = next;
    }
    return verifier.fault !== undefined;
  }
}
