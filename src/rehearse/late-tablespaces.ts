import { type ArchiveOptions, withArchives } from '../archive/places/open-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { decoding, planTimeline } from '../archive/way/plan.js';
import { scanSegments } from '../archive/way/read.js';
import { DamageTolerantScan } from '../archive/way/scan.js';
import { TargetError } from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';
import type { RestorePlan } from '../restore/options.js';
import { RMGR_INFO_MASK } from '../wal/record.js';
import { parseRecordBody } from '../wal/records/record-body.js';

/** Resource manager and record type of CREATE TABLESPACE (access/rmgrlist.h, commands/tablespace.h). */
const RM_TBLSPC = 5;
const XLOG_TBLSPC_CREATE = 0x00;

/** A tablespace that WAL makes. */
export interface LateTablespace {
  oid: number;
  /** On the server that it was made on. */
  location: string;
  lsn: Lsn;
}

/**
 * The directory of a tablespace as the WAL has it (xl_tblspc_create_rec): u32 OID, the path, a zero.
 * Undefined of one that lies in the data directory, whose path is empty.
 */
export function parseTablespaceCreate(data: Uint8Array): Omit<LateTablespace, 'lsn'> | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  if (bytes.length < 5) return undefined;
  const end = bytes.indexOf(0, 4);
  const location = bytes.toString('utf8', 4, end < 0 ? bytes.length : end);
  return location.startsWith('/') ? { oid: bytes.readUInt32LE(0), location } : undefined;
}

/**
 * A server replays CREATE TABLESPACE at the place that it names, and no setting leads it elsewhere: on
 * the machine of the server that the backup is of that is where its live files are. Reads all WAL that
 * will be replayed, and refuses if there is one.
 * @throws TargetError; the signal's reason; what the places throw
 */
export async function requireNoLateTablespace(
  places: readonly string[],
  keys: ArchiveOptions | undefined,
  plan: RestorePlan,
  signal: AbortSignal,
): Promise<void> {
  const [late] = await withArchives(places, keys ?? {}, async (archive) => {
    const catalog = await readCatalog(archive);
    // A backup that has its own WAL needs no other, and its map has what is made while it is taken.
    if (catalog.timelines.every(({ segments }) => segments.length === 0)) return [];
    return lateTablespaces(planTimeline(catalog, plan.located.timeline), plan, signal);
  });
  if (!late) return;
  const { oid, location, lsn } = late;
  throw new TargetError(
    `tablespace ${oid} was made after the backup, at "${location}": a server that replays that writes there`,
    {
      ...{ lsn, path: location },
      hint: `Take a backup, and rehearse that; or rehearse up to before it: --to ${formatLsn(lsn)} --before.`,
    },
  );
}

async function lateTablespaces(
  way: ReturnType<typeof planTimeline>,
  { backup, located }: RestorePlan,
  signal: AbortSignal,
): Promise<LateTablespace[]> {
  const from = backup.start.lsn;
  const until = located.lsn;
  const size = BigInt(way.segmentSize);
  const segments = way.segments.filter(({ start }) => start + size > from && start < until);
  const found: LateTablespace[] = [];
  const select = (rmgr: number, info: number) =>
    rmgr === RM_TBLSPC && (info & RMGR_INFO_MASK) === XLOG_TBLSPC_CREATE;
  const known = new Set(backup.tablespaces.map(({ oid }) => oid));
  const scan = new DamageTolerantScan(
    { ...decoding(way), select, until },
    {
      // The server that replays it tells.
      damage: () => false,
      record: ({ lsn, body }, major) => {
        if (lsn < from || lsn >= until || !body) return false;
        const made = parseTablespaceCreate(parseRecordBody(body, { major }).data);
        if (made && !known.has(made.oid)) found.push({ ...made, lsn });
        return found.length > 0;
      },
    },
  );
  await scanSegments(way, segments, scan, signal);
  return found;
}
