/**
 * Prints each commit as the server writes it, with its transaction id, time and LSN:
 * `node tail-commits.js CONNINFO`
 *
 * WAL is read, not stored: nothing is confirmed that others could rely on, so no slot is used.
 */
import { formatLsn, formatTimestamp, parseXactRecord, RM_XACT, walRecords } from 'walkeep';

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
const records = walRecords({
  connection: process.argv[2] ?? '',
  select: (rmgr) => rmgr === RM_XACT,
  onOpen: ({ lsn }) => console.log(`commits from ${formatLsn(lsn)}`),
  signal: stop.signal,
});
try {
  for await (const record of records) {
    const end = parseXactRecord(record, record.data, record.serverMajor);
    if (end?.kind !== 'commit') continue;
    console.log(`${end.xid} ${formatTimestamp(end.time)} ${formatLsn(record.lsn)}`);
  }
} catch (error) {
  if (!stop.signal.aborted) throw error;
}
