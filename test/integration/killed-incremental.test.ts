import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { Random } from '../simulation/random.js';
import { summarizingServer, takeChain } from '../support/backup-chain.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli } from '../support/cli.js';
import { courseOf, instantOf, killAt } from '../support/killed-at.js';
import { archiveDirectory } from '../support/receiving.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { expectClean, wholeBackups } from '../support/whole-backups.js';

/** Kills, and cuts of the connection; WALKEEP_KILLS=70 for more of them. */
const KILLS = Number(process.env.WALKEEP_KILLS ?? 5);
const SEED = Number(process.env.WALKEEP_KILLS_SEED ?? Date.now() % 1_000_000);

vi.setConfig({ testTimeout: 60_000 + 40_000 * KILLS });

const keep = disposer();
const random = new Random(SEED);

test(`an incremental backup that is killed or cut leaves none, and no full one, seed ${SEED}`, async () => {
  const server = keep(await summarizingServer(18));
  await server.sql('CREATE TABLE t AS SELECT generate_series(1, 100000) AS i');
  const archive = archiveDirectory();
  const change = () => server.sql('DELETE FROM t WHERE i % 100 = 0');
  const [full] = await takeChain(server, archive, [change], { wal: 'include' });
  const backup = (conninfo = server.conninfo()): CliRun => {
    const args = ['--json', '-w', '--wal=include', '--incremental=full', '-d', conninfo];
    return keep(runCli(['backup', ...args, archive]));
  };
  const next = async (run: CliRun) => {
    expect(await run.exit, run.stderr + run.stdout).toEqual({ code: 0, signal: null });
    return JSON.parse(run.stdout.trim().split('\n').at(-1) as string);
  };
  const directories = [join(archive, 'backups'), join(archive, 'lease')];
  const course = await courseOf(() => backup(), directories);
  for (let kills = 0; kills < KILLS; kills++) {
    await killAt(backup(), instantOf(course, random), course);
    const { begun, complete } = wholeBackups(archive);
    for (const { parent, id } of complete.slice(1)) expect([id, parent]).toEqual([id, full.id]);
    if (kills % 2 === 0 && kills < KILLS - 1) continue;
    const taken = await next(backup());
    expect(taken).toMatchObject({ parent: full.id, cleaned: begun.sort() });
    expect(taken).not.toHaveProperty('fallback');
    expectClean(archive);
  }

  // Whatever is cut, also what the server answers to the manifest, is no refusal.
  const proxy = keep(await TcpProxy.listen(server.port));
  await next(backup(proxy.conninfo()));
  const whole = proxy.forwarded;
  let taken = wholeBackups(archive).complete.length;
  for (let cuts = 0; cuts < KILLS; cuts++) {
    const end = 1 + random.below(Math.round(whole * (cuts % 2 === 0 ? 0.01 : 0.98)));
    const before = proxy.forwarded;
    proxy.after(end, 'cut');
    const run = backup(proxy.conninfo());
    const { code } = await run.exit;
    // One that spans fewer segments of WAL than the first did is over earlier.
    const isCut = proxy.forwarded - before >= end;
    expect(code, run.stderr).toBe(isCut ? 1 : 0);
    if (!isCut) taken += 1;
    expectClean(archive);
    expect(wholeBackups(archive).complete).toHaveLength(taken);
  }
});
