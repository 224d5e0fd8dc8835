/**
 * Prints each commit as the server writes it, with its transaction id, time and LSN:
 * `node tail-commits.js CONNINFO`
 *
 * WAL is read, not stored: nothing is confirmed that others could rely on, so no slot is used.
 */
import {
  type ConnectionSettings,
  connect,
  formatLsn,
  formatTimestamp,
  parseRecordBody,
  parseXactRecord,
  RM_XACT,
  resolveSettings,
  streamWal,
  WalDecoder,
} from 'walkeep';

const conninfo = process.argv[2] ?? '';
const settings = await resolveSettings({ conninfo, fallbackApplicationName: 'tail-commits' });

/** The decoder needs to know where pages and segments begin. */
async function askServer(connection: ConnectionSettings) {
  const session = await connect(connection);
  const { systemId, flushLsn } = await session.identifySystem();
  const megabytes = Number.parseInt(await session.show('wal_segment_size'), 10);
  await session.close();
  return { systemId, segmentSize: megabytes * 1024 * 1024, flushLsn };
}

const { systemId, segmentSize, flushLsn } = await askServer(settings);
// Records are found from the start of a page; commits of before are passed over.
const startLsn = (flushLsn & ~8191n) as typeof flushLsn;
const select = (rmgr: number) => rmgr === RM_XACT;
const decoder = new WalDecoder({ startLsn, segmentSize, systemId, select });

function printCommits(chunk: Buffer): void {
  decoder.feed(chunk);
  for (let record = decoder.next(); record; record = decoder.next()) {
    if (!record.body || record.endLsn <= flushLsn) continue;
    const major = decoder.serverMajor;
    const { data } = parseRecordBody(record.body, { major });
    const end = parseXactRecord(record, data, major);
    if (end?.kind !== 'commit') continue;
    console.log(`${end.xid} ${formatTimestamp(end.time)} ${formatLsn(record.lsn)}`);
  }
}

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
console.log(`commits from ${formatLsn(flushLsn)}`);
await streamWal(
  { connection: settings, startLsn, systemId, verify: 'off' },
  { write: printCommits, flush: () => {} },
  stop.signal,
);
