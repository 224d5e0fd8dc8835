/** A receiver that discards: the server's own limit. `null-receiver CONNINFO START END [SLOT]`. */
import { connect } from '../src/connection/connect.js';
import { resolveSettings } from '../src/connection/conninfo/resolve.js';
import { parseLsn } from '../src/lsn.js';

const [conninfo, start, end] = process.argv.slice(2) as [string, string, string];
const endLsn = parseLsn(end);
const settings = await resolveSettings({ conninfo, fallbackApplicationName: 'null-receiver' });
const connection = await connect(settings, { replication: 'physical' });
const ignore = () => undefined;
await connection.startReplication(
  { startLsn: parseLsn(start), timeline: 1 },
  {
    onWalHeader: (walStart) => {
      if (walStart > endLsn) process.exit(0);
    },
    onWalBytes: ignore,
    onWalMessageEnd: ignore,
    onKeepalive: (walEnd) => {
      if (walEnd > endLsn) process.exit(0);
    },
    onReadEnd: ignore,
    onServerCopyDone: ignore,
    onFailure: (error) => {
      process.stderr.write(`${error.message}\n`);
      process.exit(1);
    },
  },
);
