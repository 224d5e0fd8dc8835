import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { formatLsn, type Lsn } from '../../src/lsn.js';
import { parseSegmentFileName, segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { type CliOptions, type CliRun, runCli } from './cli.js';
import { firstDifference } from './compare.js';
import type { PostgresServer } from './postgres.js';
import { scratchDir } from './scratch.js';
import { waitFor } from './wait.js';

export type Program = 'walkeep' | 'pg_receivewal';
export const PROGRAMS: readonly Program[] = ['walkeep', 'pg_receivewal'];

/** An empty directory to receive into. */
export const archiveDirectory = () => scratchDir('wal');

/** Starts a receiver under either name, verbose. */
export function receive(
  directory: string,
  conninfo: string,
  args: string[] = [],
  options: CliOptions = {},
): CliRun {
  const command = (options.program ?? 'walkeep') === 'walkeep' ? ['receive'] : [];
  return runCli([...command, '-D', directory, '-d', conninfo, '-v', '-w', ...args], options);
}

/** For a scripted server whose bytes are no WAL; pg_receivewal's name does not look at them. */
export const unverified = (program: Program) => (program === 'walkeep' ? ['--verify=off'] : []);

/** Writes about `bytes` of incompressible WAL; gives the flush position behind it. */
export async function writeWal(server: PostgresServer, bytes = 100_000): Promise<Lsn> {
  const client = await server.client();
  try {
    await emit(client, bytes);
  } finally {
    await client.end();
  }
  return server.currentLsn();
}

async function emit(client: Client, bytes: number): Promise<void> {
  await client.query(
    `SELECT pg_logical_emit_message(true, 'test', string_agg(sha512((random()::text || i)::bytea), ''))
       FROM generate_series(1, $1::int / 64) i`,
    [bytes],
  );
}

const segmentNames = (dir: string) =>
  readdirSync(dir).filter((name) => /^[0-9A-F]{24}(\.gz|\.lz4)?(\.partial)?$/.test(name));

/** The content of a segment file, decompressed with the tools of that format. */
export function content(path: string): Buffer {
  const options = { maxBuffer: 2 ** 30, stdio: ['ignore', 'pipe', 'pipe'] as const };
  const settings = { ...options, stdio: [...options.stdio] };
  if (/\.gz(\.partial)?$/.test(path)) {
    return execFileSync('sh', ['-c', 'gzip -dc < "$1"', 'sh', path], settings);
  }
  if (/\.lz4(\.partial)?$/.test(path)) {
    return execFileSync('sh', ['-c', 'lz4 -dc < "$1"', 'sh', path], settings);
  }
  return readFileSync(path);
}

/** What the servers themselves have of a segment: the archived copy, else the file in pg_wal. */
function reference(servers: readonly PostgresServer[], name: string): Buffer | undefined {
  const paths = [
    ...servers.map((s) => join(s.archiveDir, name)),
    ...servers.map((s) => join(s.dataDir, 'pg_wal', name)),
  ];
  const found = paths.find((path) => existsSync(path));
  return found === undefined ? undefined : readFileSync(found);
}

/** How a directory's files differ from what the servers have; empty when all is well. */
export function differences(
  directory: string,
  servers: readonly PostgresServer[],
  holes = 0,
): string[] {
  const { segmentSize } = servers[0] as PostgresServer;
  const problems: string[] = [];
  const complete = segmentNames(directory).filter((name) => !name.endsWith('.partial'));
  for (const name of complete) {
    const expected = reference(servers, name.slice(0, 24));
    const actual = content(join(directory, name));
    if (!expected) problems.push(`${name}: no server has it`);
    else if (actual.length !== segmentSize) problems.push(`${name}: ${actual.length} bytes`);
    else {
      const offset = firstDifference(actual, expected);
      if (offset >= 0) problems.push(`${name}: differs at ${offset}`);
    }
  }
  // Received twice, and put in place of a segment that was there already.
  for (const name of readdirSync(directory)) {
    if (name.endsWith('.replaced')) problems.push(`${name}: a segment was replaced`);
  }
  // A timeline ends in one partial; another one was left behind.
  const partials = segmentNames(directory).filter((name) => name.endsWith('.partial'));
  const begun = [...new Set(partials.map((name) => name.slice(0, 24)))];
  const timelines = new Set(begun.map((name) => name.slice(0, 8)));
  if (timelines.size + holes < begun.length) problems.push(`partials: ${partials}`);
  // Segments of all timelines together have no hole.
  const numbers = complete.map(
    (name) => parseSegmentFileName(name, segmentSize)?.segment as bigint,
  );
  const sorted = [...new Set(numbers)].sort((a, b) => (a < b ? -1 : 1));
  const behindHoles = sorted.filter((n, i) => i > 0 && n !== (sorted[i - 1] as bigint) + 1n);
  if (behindHoles.length !== holes) problems.push(`holes before segments: ${behindHoles}`);
  return problems;
}

/**
 * True once the directory holds the server's WAL up to `lsn`: every segment from the first stored
 * one on, complete or partial, byte for byte; a plain partial is zero behind that.
 */
export async function holds(
  directory: string,
  server: PostgresServer,
  lsn: Lsn,
  timeline = 1,
): Promise<string | undefined> {
  const { segmentSize } = server;
  const segment = segmentOf(lsn, segmentSize);
  const name = segmentFileName(timeline, segment, segmentSize);
  const length = Number(lsn % BigInt(segmentSize));
  if (length === 0) return undefined;
  const there = segmentNames(directory).filter((n) => n.startsWith(name));
  if (there.length === 0) return `nothing of ${name} at ${formatLsn(lsn)}`;
  const expected = readFileSync(join(server.dataDir, 'pg_wal', name));
  let best = 'no file';
  for (const file of there) {
    const actual = content(join(directory, file));
    const at = firstDifference(actual.subarray(0, length), expected.subarray(0, length));
    if (at < 0) {
      // What came after `lsn` is the server's, then come zeros.
      let end = actual.length;
      while (end > length && actual[end - 1] === 0) end -= 1;
      const beyond = firstDifference(actual.subarray(length, end), expected.subarray(length, end));
      if (beyond < 0) return undefined;
      best = `${file} has other bytes at ${length + beyond}, behind ${length}`;
    } else {
      best = `${file} (${actual.length} bytes) differs at ${at} of ${length}`;
    }
  }
  return best;
}

/** Waits until the directory holds all that the server has, then checks every file in it. */
export async function waitEqual(
  directory: string,
  server: PostgresServer,
  options: {
    timeline?: number;
    others?: PostgresServer[];
    timeoutMs?: number;
    holes?: number;
  } = {},
): Promise<Lsn> {
  const { timeline = 1, others = [], timeoutMs = 60_000, holes = 0 } = options;
  const lsn = await waitFor(
    async () => {
      const position = await server.currentLsn();
      const problem = await holds(directory, server, position, timeline);
      if (problem) throw new Error(problem);
      return position;
    },
    { what: `${directory} to hold the WAL of the server`, timeoutMs },
  );
  // A segment gets its final name a moment after its last byte.
  await waitFor(
    () => {
      const problems = differences(directory, [server, ...others], holes);
      if (problems.length > 0) throw new Error(problems.join('; '));
      return true;
    },
    { what: 'the segments to be equal', timeoutMs },
  );
  return lsn;
}
