import { execFile } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { cmpSegments } from '../support/compare.js';
import { NODES, type Node } from '../support/nodes.js';
import { MAJORS, PASSWORD, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, waitEqual, writeWal } from '../support/receiving.js';
import { packageRoot, scratchDir } from '../support/scratch.js';

const exec = promisify(execFile);
const keep = disposer();
const major = MAJORS.at(-1);

/** Of what a newer version deprecates, and of what an older one calls experimental. */
const COMPLAINT = /Warning:|\(node:\d+\)/;

const environment = (node: Node) => ({
  PATH: `${node.bin}${delimiter}${process.env.PATH}`,
  HOME: scratchDir('home'),
  PGPASSWORD: PASSWORD,
});

/** A command as a user runs it, with this node first on the path. Fails unless it ends with 0. */
async function run(node: Node, command: string, ...args: string[]) {
  const ended = await exec(command, args, {
    ...{ cwd: packageRoot, env: environment(node), maxBuffer: 2 ** 26 },
  });
  expect(ended.stderr).not.toMatch(COMPLAINT);
  return ended;
}

const walkeep = (node: Node, ...args: string[]) =>
  run(node, join(packageRoot, 'bin', 'walkeep'), ...args);

/** What a program of a user does. */
const PROGRAM = `
  import { openArchive, WalVerifier } from 'walkeep';
  import { formatLsn, segmentFileName } from 'walkeep/wal';
  const archive = await openArchive(process.argv[1]);
  const { findings } = await archive.verify();
  let records = 0;
  for await (const record of archive.records()) records += record.lsn > 0n ? 1 : 0;
  const { backups } = await archive.backups();
  await archive.close();
  const verifier = new WalVerifier({ startLsn: 0x1000000n, segmentSize: 2 ** 24 });
  console.log(JSON.stringify({
    node: process.version.split('.')[0],
    findings: findings.map(({ code }) => code),
    records: records > 0,
    backups: backups.map(({ state }) => state),
    fault: verifier.feed(Buffer.alloc(8192)).kind,
    names: [formatLsn(1n), segmentFileName(1, 5n, 2 ** 24)],
  }));`;

/** Receives, backs up, reads back by every door, ships encrypted, and uses the library. */
async function useAll(node: Node): Promise<void> {
  const server = keep(
    await PostgresServer.create({
      ...{ major: major!, archive: true, auth: 'scram-sha-256', tls: true },
    }),
  );
  const { host, port, user } = server;
  const conninfo = `host=${host} port=${port} user=${user} sslmode=require`;
  const archive = archiveDirectory();
  await walkeep(node, 'slot', 'create', '-d', conninfo, 'smoke');
  const args = ['receive', '-D', archive, '-S', 'smoke', '--synchronous', '-d', conninfo];
  const receiver = keep(
    runCli(args, { node: join(node.bin, 'node'), env: environment(node), cwd: packageRoot }),
  );
  await walkeep(node, 'backup', archive, '-d', conninfo);
  const whole = await server.currentSegment();
  await writeWal(server, 1_500_000);
  await server.waitArchived(whole);
  await waitEqual(archive, server);
  await walkeep(node, 'check', '-D', archive, '-d', conninfo, '-S', 'smoke');
  expect(await receiver.stop('SIGINT')).toEqual({ code: 0, signal: null });
  expect(receiver.stderr).not.toMatch(COMPLAINT);

  await walkeep(node, 'verify', archive);
  const out = scratchDir('out', { forServer: true });
  await walkeep(node, 'fetch', archive, whole, join(out, whole));
  expect(cmpSegments(out, server.archiveDir)).toMatchObject({ equal: [whole], different: [] });
  expect((await walkeep(node, 'list', archive)).stdout).toContain('timeline 1');
  await walkeep(node, 'restore', '--no-try-fetch', archive, join(out, 'data'));
  expect(readdirSync(join(out, 'data'))).toContain('recovery.signal');

  const identity = await generateX25519Identity();
  const key = join(out, 'key');
  writeFileSync(key, `${identity}\n`, { mode: 0o600 });
  const store = scratchDir('store');
  const recipient = await identityToRecipient(identity);
  await walkeep(node, 'store', '--init', store);
  await walkeep(node, 'ship', '--once', '--recipient', recipient, archive, store);
  await walkeep(node, 'verify', '--identity', key, store);

  const { stdout } = await run(...[node, 'node', '--input-type=module', '-e', PROGRAM, archive]);
  expect(JSON.parse(stdout)).toEqual({
    node: `v${node.major}`,
    findings: [],
    records: true,
    backups: ['complete'],
    fault: 'zeros',
    names: ['0/1', '000000010000000000000005'],
  });
}

describe.each(NODES)('Node.js $major', (node) => {
  const version = `Node.js ${node.major}`;
  const why = node.missing && ` (skipped: ${node.missing})`;

  test.skipIf(node.missing)(`${version} starts the commands${why}`, async () => {
    const { stdout } = await run(node, 'node', '--version');
    expect(stdout).toMatch(new RegExp(`^v${node.major}\\.`));
    for (const program of ['walkeep', 'pg_receivewal']) {
      const help = await run(node, join(packageRoot, 'bin', program), '--help');
      expect(help.stdout).toMatch(/usage:/i);
    }
  });

  test.skipIf(node.missing || !major)(
    `${version} receives, backs up, fetches, verifies, restores, ships, and has the library${why}`,
    () => useAll(node),
  );
});
