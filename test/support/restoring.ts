import { execFile, execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { BaseBackupHandler } from '../../src/connection/base-backup.js';
import { connect } from '../../src/connection/connect.js';
import { settingsFor } from '../connection/fixtures.js';
import { copyPackage } from './package-copy.js';
import type { PostgresServer } from './postgres.js';
import { serverUser } from './scratch.js';
import { waitFor } from './wait.js';

export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

let shared: string | undefined;

/** The command of a package that the servers' user can run, too: restore_command names it. */
export function installedCommand(): string {
  shared ??= copyPackage();
  return join(shared, 'bin', 'walkeep');
}

/** Runs it to its end, with node and the system's programs on its path and nothing else. */
export function walkeep(
  args: readonly string[],
  env: Record<string, string> = {},
  script = installedCommand(),
): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [script, ...args],
      { env: { PATH: process.env.PATH ?? '', ...env }, maxBuffer: 2 ** 26 },
      (error, stdout, stderr) => {
        const code = typeof error?.code === 'number' ? error.code : error ? -1 : 0;
        resolve({ code, stdout, stderr });
      },
    );
  });
}

/** Fails with all that it said if it does not end well. */
export async function walkeepDone(args: readonly string[], env = {}): Promise<Ended> {
  const ended = await walkeep(args, env);
  expect(ended.code, `${args.join(' ')}\n${ended.stdout}${ended.stderr}`).toBe(0);
  return ended;
}

/** An archive that root received into is the servers' user's from now on: it runs restore_command. */
export function handOver(archive: string): void {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, archive]);
}

/** Until the server takes writes. */
export async function recovered(server: PostgresServer): Promise<void> {
  const isPrimary = async (): Promise<boolean> => {
    const [row] = await server.sql('SELECT pg_is_in_recovery() AS r');
    return row?.r === false;
  };
  await waitFor(isPrimary, { what: 'the end of recovery' });
}

const NOTHING: BaseBackupHandler = {
  onStart() {},
  onArchive() {},
  onData() {},
  onManifest() {},
  onProgress() {},
};

/**
 * Has the server read every page of every file, each with its checksum, and every row both ways.
 * Must be a primary whose data directory was made with --data-checksums. Of temporary tables of sessions
 * that crashed nothing but the name is left.
 */
export async function readsEveryPage(server: PostgresServer): Promise<void> {
  const [{ on }] = (await server.sql("SELECT current_setting('data_checksums') AS on")) as [
    { on: string },
  ];
  expect(on).toBe('on');
  await server.sql(`DO $$ DECLARE r regclass; a bigint; b bigint; BEGIN
    FOR r IN SELECT oid FROM pg_class WHERE relkind IN ('r', 't', 'm') AND relpersistence <> 't' LOOP
      SET LOCAL enable_seqscan = on;
      EXECUTE format('SELECT count(*) FROM %s', r) INTO a;
      SET LOCAL enable_seqscan = off;
      EXECUTE format('SELECT count(*) FROM %s', r) INTO b;
      IF a <> b THEN RAISE EXCEPTION '% has % rows, by index %', r, a, b; END IF;
    END LOOP; END $$`);
  const connection = await connect(settingsFor(server.host, server.port));
  try {
    // The server fails a base backup behind its end if a page had another checksum.
    await connection.baseBackup(
      { label: 'pages', checkpoint: 'fast', noWait: true, manifest: 'no' },
      NOTHING,
    ).done;
  } finally {
    connection.destroy();
  }
}
