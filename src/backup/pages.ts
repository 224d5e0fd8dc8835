import { hasPageChecksum } from '../base/page.js';
import {
  type BadPage,
  BLOCK_SIZE,
  lsnOf,
  type PageCheck,
  pagesText,
  SEGMENT_BLOCKS,
} from '../base/page-check.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { CorruptObjectError, WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { controlGeometry } from '../server/control-file.js';
import { sqlRows } from '../server/sql.js';

export interface JudgePages {
  /** Of the backup. */
  control: Uint8Array | undefined;
  start: Lsn;
  /** Asks the server for pages once more; it may not be allowed. */
  connect(): Promise<ReplicationConnection>;
  /** The server has compared them too: one that is wrong here is wrong. Otherwise it is only told. */
  isStrict: boolean;
  warn(message: string): void;
}

/**
 * What the pages of a base backup, which have come, say: those whose checksums are wrong are read once
 * more, since one that was read while it was written is whole in the WAL that the backup needs.
 * @returns whether they could be judged
 * @throws CorruptObjectError for pages that are wrong
 */
export async function judgePages(pages: PageCheck, options: JudgePages): Promise<boolean> {
  const geometry = options.control && controlGeometry(options.control);
  const why = !geometry
    ? 'its pg_control cannot be read'
    : !geometry.checksums
      ? 'the cluster has none'
      : geometry.blockSize !== BLOCK_SIZE || geometry.segmentBlocks !== SEGMENT_BLOCKS
        ? `its pages have ${geometry.blockSize} bytes, its files ${geometry.segmentBlocks} pages`
        : undefined;
  if (why !== undefined) {
    options.warn(`page checksums were not compared: ${why}`);
    return false;
  }
  if (pages.wrong === 0) return true;
  const bad = await stillBad(pages.bad, options);
  const wrong = pages.wrong - (pages.bad.length - bad.length);
  if (wrong === 0) return true;
  const message = pagesText(bad, wrong);
  if (options.isStrict) {
    throw new CorruptObjectError(message, {
      hint: 'The disk or the memory of the server changes pages. With --no-verify-checksums a backup takes them along.',
    });
  }
  options.warn(message);
  return true;
}

async function stillBad(found: readonly BadPage[], options: JudgePages): Promise<BadPage[]> {
  let sql: ReplicationConnection | undefined;
  try {
    sql = await options.connect();
    const bad: BadPage[] = [];
    for (const page of found) if (await isStillBad(sql, page, options.start)) bad.push(page);
    return bad;
  } catch (e) {
    // The role may not read files: what came is what is judged.
    if (e instanceof WalkeepError) return [...found];
    throw e;
  } finally {
    await sql?.close();
  }
}

/** Files that no server trusts: of a page that is wrong it makes one of zeros (RBM_ZERO_ON_ERROR). */
const MAP = /_(?:fsm|vm)(?:\.\d+)?$/;

/**
 * What the server has now is good for nothing but to tell whether the WAL of the backup has the page:
 * it is the one that came which is restored.
 */
async function isStillBad(
  sql: ReplicationConnection,
  { path, block, incremental }: BadPage,
  start: Lsn,
): Promise<boolean> {
  const name = incremental ? path.replace(/INCREMENTAL\.(?=[^/]*$)/, '') : path;
  const offset = (block % SEGMENT_BLOCKS) * BLOCK_SIZE;
  // Of what was dropped or cut off since nothing comes.
  const [row] = await sqlRows(
    sql,
    `SELECT encode(pg_read_binary_file('${name}', ${offset}, ${BLOCK_SIZE}, true), 'base64') AS page`,
  );
  const page = Buffer.from(row?.page ?? '', 'base64');
  if (page.length < BLOCK_SIZE || lsnOf(page) > start) return false;
  // Maps are changed without a word in the WAL, so that one may come while it is written.
  return !MAP.test(path) || !hasPageChecksum(page, block);
}
