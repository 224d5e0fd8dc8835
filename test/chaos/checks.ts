import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { WalDecoder } from '../../src/wal/decoder.js';
import { parseSegmentFileName, type SegmentName, segmentStart } from '../../src/wal/file-name.js';
import { DEFAULT_BLOCK_SIZE, SHORT_PAGE_HEADER } from '../../src/wal/page.js';
import { RECORD_HEADER_SIZE } from '../../src/wal/record.js';
import { runCli } from '../support/cli.js';
import { firstDifference } from '../support/compare.js';
import { copyPackage } from '../support/package-copy.js';
import type { PostgresServer } from '../support/postgres.js';
import { content } from '../support/receiving.js';
import { serverUser } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import type { Cluster } from './cluster.js';

/** `walkeep verify` of the archive. */
export async function verified(directory: string): Promise<{ clean: boolean; findings: string[] }> {
  const run = runCli(['verify', '--json', directory]);
  const { code } = await run.exit;
  const lines = run.stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  const findings = lines.filter((f) => f.type === 'finding' && f.severity !== 'info');
  return {
    clean: code === 0 && findings.length === 0,
    findings: findings
      .map((f) => `${f.code} ${f.file ?? ''} ${f.message}`)
      .concat(run.stderr || []),
  };
}

export interface ArchiveComparison {
  /** Complete segments that equal what the server archived. */
  equal: number;
  /** Those that a killed server had finished and not archived: compared with its pg_wal. */
  equalInPgWal: number;
  /** Those that are compressed, in either. */
  compressed: number;
  histories: number;
  /** Files put aside since a record that began in them turned out damaged: evidence, not archive. */
  replaced: number;
  /** Segments that differ only behind a switch record, in bytes that a killed server left there. */
  differentFill: number;
  /** Different bytes, missing references, files of a wrong size. */
  problems: string[];
}

/** Compares every complete segment and history file with what the retired servers left. */
export function comparedWithServers(directory: string, cluster: Cluster): ArchiveComparison {
  const result: ArchiveComparison = {
    equal: 0,
    equalInPgWal: 0,
    compressed: 0,
    histories: 0,
    replaced: 0,
    differentFill: 0,
    problems: [],
  };
  for (const name of readdirSync(directory).sort()) {
    const evidence = /^\.([0-9A-F]{24}(?:\.gz|\.lz4)?)\.replaced$/.exec(name)?.[1];
    if (evidence !== undefined) {
      result.replaced += 1;
      const now = join(directory, evidence);
      const same = existsSync(now) && readFileSync(now).equals(readFileSync(join(directory, name)));
      if (same) result.problems.push(`${name}: replaced by the same`);
    }
    const segment = /^([0-9A-F]{24})(\.gz|\.lz4)?$/.exec(name);
    if (!segment && !/^[0-9A-F]{8}\.history$/.test(name)) continue;
    const base = segment?.[1] ?? name;
    const from = [cluster.archived, cluster.inPgWal].find((dir) => existsSync(join(dir, base)));
    if (from === undefined) {
      result.problems.push(`${name}: no server has it`);
      continue;
    }
    const reference = readFileSync(join(from, base));
    const at = firstDifference(content(join(directory, name)), reference);
    if (at >= 0 && segment && at >= endOfWal(base, reference)) result.differentFill += 1;
    else if (at >= 0) result.problems.push(`${name}: differs at ${at} from ${from}`);
    else if (!segment) result.histories += 1;
    else if (segment[2]) result.compressed += 1;
    else if (from === cluster.archived) result.equal += 1;
    else result.equalInPgWal += 1;
  }
  return result;
}

const [RM_XLOG, XLOG_SWITCH] = [0, 0x40];

/** Where a segment's WAL ends, in bytes from its start: behind a switch record anything may stand. */
export function endOfWal(name: string, bytes: Buffer): number {
  const { timeline, segment } = parseSegmentFileName(name, bytes.length) as SegmentName;
  const startLsn = segmentStart(segment, bytes.length);
  const decoder = new WalDecoder({
    startLsn,
    segmentSize: bytes.length,
    timeline,
    partial: true,
    select: (rmgr, info) => rmgr === RM_XLOG && (info & 0xf0) === XLOG_SWITCH,
  });
  decoder.feed(bytes);
  const found = decoder.next();
  if (!found) return bytes.length;
  const begin = Number(found.lsn - startLsn);
  const end = begin + RECORD_HEADER_SIZE;
  const pageEnd = (Math.floor(begin / DEFAULT_BLOCK_SIZE) + 1) * DEFAULT_BLOCK_SIZE;
  return end > pageEnd ? end + SHORT_PAGE_HEADER : end;
}

/** Recovers a new server from a base backup and the archive, and looks for rows. */
export async function missingAfterRecovery(
  origin: PostgresServer,
  backup: string,
  directory: string,
  confirmed: readonly number[],
): Promise<{ lost: number[]; rows: number; timeline: number }> {
  const { uid, gid } = serverUser;
  if (uid !== undefined) execFileSync('chown', ['-R', `${uid}:${gid}`, directory]);
  const fetch = `${process.execPath} ${join(copyPackage(), 'bin', 'walkeep')} fetch --prefetch=16`;
  await using recovered = await origin.recoverFrom({
    backup,
    restoreCommand: `${fetch} ${directory} %f %p`,
    targetSettings: { recovery_target_action: 'promote' },
    settings: { synchronous_standby_names: '' },
  });
  await waitFor(
    async () => (await recovered.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false,
    { what: 'the recovery to end', timeoutMs: 1_800_000, intervalMs: 50 },
  );
  const rows = await recovered.sql<{ n: number }>('SELECT n FROM t');
  const there = new Set(rows.map((row) => row.n));
  const timeline = Number.parseInt((await recovered.currentSegment()).slice(0, 8), 16);
  return { lost: confirmed.filter((n) => !there.has(n)), rows: rows.length, timeline };
}
