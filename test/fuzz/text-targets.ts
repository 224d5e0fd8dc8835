import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseConninfo } from '../../src/connection/conninfo/conninfo.js';
import { findPassword } from '../../src/connection/conninfo/passfile.js';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import { parseServiceFile } from '../../src/connection/conninfo/service-file.js';
import { parseFetchName } from '../../src/fetch/fetch.js';
import { formatLsn, parseLsn } from '../../src/lsn.js';
import { parseSyncStandbyNames } from '../../src/protocol/sync-standby-names.js';
import {
  historyFileName,
  parseHistoryFileName,
  parseSegmentFileName,
  parseSegmentSize,
  segmentFileName,
} from '../../src/wal/file-name.js';
import { parseTimestamp } from '../../src/wal/records/timestamp.js';
import { parseTimelineHistory, timelineAt } from '../../src/wal/timeline.js';
import { asyncTarget, target, typed, typedAsync } from './harness.js';
import { textOf } from './inputs.js';

const historyText = textOf(
  [
    '1',
    '2',
    '3',
    '\t',
    '\t',
    ' ',
    '\n',
    '\n',
    '0/3000000',
    '0/5000000',
    'FFFFFFFF/FFFFFFFF',
  ].concat([
    'no recovery target specified',
    '#',
    '../../etc/x',
    '4294967296',
    '/',
    '-1',
    '\r\n',
    '\0',
  ]),
  20,
);

const history = target(
  'history file parser',
  80,
  fc.tuple(fc.integer({ min: 1, max: 5 }), historyText),
  ([timeline, text]) => {
    const read = typed(() => parseTimelineHistory(timeline, text));
    if (!read) return;
    let last = { timeline: 0, end: 0n };
    for (const ancestor of read.ancestors) {
      assert(ancestor.timeline > last.timeline && ancestor.timeline < timeline);
      assert(ancestor.end >= last.end && ancestor.end < 2n ** 64n);
      last = ancestor;
    }
    assert.equal(timelineAt(read, 2n ** 64n), timeline);
  },
);

const nameText = textOf(
  [
    '00000001',
    '00000000',
    '0000000A',
    'FFFFFFFF',
    '000000FF',
    '00001000',
    '.partial',
    '.gz',
  ].concat(['.lz4', '.zst', '.history', '.backup', '.00000028', '../', '/', '\0', '\n', 'a', ' ']),
  6,
);
const sizes = fc.integer({ min: 20, max: 30 }).map((power) => 2 ** power);

const names = target('file names, LSNs, times', 100, fc.tuple(nameText, sizes), ([text, size]) => {
  const segment = parseSegmentFileName(text, size);
  if (segment) {
    assert.equal(segmentFileName(segment.timeline, segment.segment, size), text.slice(0, 24));
    assert.doesNotMatch(text, /[^0-9A-Za-z.]/);
  }
  const timeline = parseHistoryFileName(text);
  if (timeline !== undefined) assert.equal(historyFileName(timeline), text);
  const fetched = typed(() => parseFetchName(text));
  if (fetched) assert.doesNotMatch(text, /[^0-9A-Za-z.]/);
  const lsn = typed(() => parseLsn(text));
  if (lsn !== undefined) assert.equal(parseLsn(formatLsn(lsn)), lsn);
  typed(() => parseSegmentSize(text));
  typed(() => parseTimestamp(text));
  parseSyncStandbyNames(text);
});

const KEYWORDS = ['host', 'hostaddr', 'port', 'user', 'password', 'dbname', 'sslmode', 'options'];
const VALUES = ['localhost', '127.0.0.1', '[::1]', '/tmp', '5432', '0', '70000', '-1', 'require'];
const MORE = ['connect_timeout', 'require_auth', 'channel_binding', 'target_session_attrs', 'x'];
const MARKS = ['=', '=', ' ', ' ', "'", '\\', ',', ':', '@', '/', '?', '&', '%41', '%', '%zz', '#'];
const WHOLE = ['postgresql://', 'postgres://', 'scram-sha-256', '!none', 'any', '\n', '[s]', '*'];
const connectionText = textOf([...KEYWORDS, ...VALUES, ...MORE, ...MARKS, ...WHOLE], 16);

/** Nothing of the machine it runs on gets in. */
const env = { HOME: '/nonexistent', PGSYSCONFDIR: '/nonexistent', PGUSER: 'u' };

const conninfo = asyncTarget(
  'conninfo, service and password file',
  80,
  connectionText,
  async () => ({
    check: async (text) => {
      typed(() => parseConninfo(text));
      typed(() => parseServiceFile(`[s]\n${text}`, 's', 'service'));
      findPassword(text, { host: 'localhost', port: 5432, database: 'replication', user: 'u' });
      if (/service/.test(text)) return;
      const settings = await typedAsync(() =>
        resolveSettings({ conninfo: text, fallbackApplicationName: 'walkeep' }, env),
      );
      if (!settings) return;
      assert(settings.targets.length > 0 && settings.connectTimeout >= 0);
      for (const { port } of settings.targets) assert(port > 0 && port < 65536);
    },
  }),
);

export const textTargets = [history, names, conninfo];
