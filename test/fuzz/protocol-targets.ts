import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { WalkeepError } from '../../src/errors.js';
import { type BackendMessage, decodeFrame } from '../../src/protocol/backend-message.js';
import { BackupStreamReader } from '../../src/protocol/backup-stream.js';
import { parseBackupPosition, parseBackupTablespaces } from '../../src/protocol/base-backup.js';
import {
  type CopyBothHandler,
  FrameReader,
  type FrameSink,
} from '../../src/protocol/frame-reader.js';
import * as replication from '../../src/protocol/replication.js';
import { ScramClient } from '../../src/protocol/scram.js';
import { toServerError } from '../../src/protocol/server-error.js';
import * as backend from '../support/backend-messages.js';
import { asyncTarget, expectTyped, target, typed, typedAsync } from './harness.js';
import { cuts, damages, pieces, spoil } from './inputs.js';

/** Digests all calls; the same bytes must give the same calls however they are cut. */
class Listener implements FrameSink, CopyBothHandler {
  readonly reader = new FrameReader(this);
  calls = '';
  failure: WalkeepError | undefined;
  /** Payload announced and not delivered. */
  private due = 0;

  onMessage(message: BackendMessage): void {
    this.note(JSON.stringify(message));
    if (message.name === 'copyBothResponse') this.reader.enterCopyBoth(this);
    if (message.name === 'error') toServerError(message.notice);
  }
  onCopyData(chunk: Buffer): void {
    this.note(`copy ${chunk.length}`);
  }
  onReaderFailure(error: WalkeepError): void {
    expectTyped(error);
    this.note(`failure ${error.message}`);
    this.failure = error;
  }
  onWalHeader(start: bigint, end: bigint, time: bigint, length: number): void {
    assert.equal(this.due, 0);
    this.due = length;
    this.note(`wal ${start} ${end} ${time} ${length}`);
  }
  onWalBytes(chunk: Buffer): void {
    this.due -= chunk.length;
    assert(this.due >= 0);
  }
  onWalMessageEnd(): void {
    assert.equal(this.due, 0);
    this.note('end');
  }
  onKeepalive(end: bigint, time: bigint, reply: boolean): void {
    this.note(`keepalive ${end} ${time} ${reply}`);
  }
  onReadEnd(): void {}
  onServerCopyDone(): void {}
  onFailure(): void {}
  private note(call: string): void {
    assert.equal(this.failure, undefined, 'a call behind the failure');
    this.calls += `${call}\n`;
  }
}

const START = 0x300_0000n;
const SESSION = Buffer.concat([
  backend.authentication(10, Buffer.from('SCRAM-SHA-256\0\0')),
  backend.authenticationOk(),
  backend.parameterStatus('server_version', '18.4'),
  backend.backendKeyData(),
  backend.readyForQuery(),
  backend.resultSet({ systemid: '7', timeline: '1', xlogpos: '0/3000000', dbname: null }),
  backend.errorResponse('42704', 'no slot', { D: 'detail', H: 'hint' }),
  backend.readyForQuery(),
  backend.copyBoth(),
  backend.xlogData(START, Buffer.from('0123456789')),
  backend.keepalive(START, true),
  backend.noticeResponse('careful'),
  backend.xlogData(START + 10n, Buffer.alloc(40, 1)),
  backend.copyDone(),
  backend.resultSet({ next_tli: '2', next_tli_startpos: '0/3000000' }),
]);

const type = fc.constantFrom(...'RSKZTDCEWdcNAvGHnstI123V');
const length = fc.oneof(
  { weight: 8, arbitrary: fc.constant(undefined) },
  { weight: 1, arbitrary: fc.nat(40) },
  { weight: 1, arbitrary: fc.constantFrom(-1, 0x7fffffff, 65537, 16 * 1024 * 1024 + 1) },
);
const body = fc.uint8Array({ maxLength: 60 });
/** Any message, most with the right length. */
export const anyMessage = fc
  .tuple(type, body, length)
  .map(([t, bytes, size]) => backend.message(t, bytes, size));

const bytes = fc.oneof(
  { weight: 3, arbitrary: damages(5).map((changes) => spoil(SESSION, changes)) },
  {
    weight: 2,
    arbitrary: fc.array(anyMessage, { maxLength: 6 }).map((messages) => Buffer.concat(messages)),
  },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map((b) => Buffer.from(b)) },
);

const frames = target('frame reader', 150, fc.tuple(bytes, cuts, fc.boolean()), (input) => {
  const [all, sizes, streaming] = input;
  const run = (chunks: Iterable<Buffer>) => {
    const listener = new Listener();
    if (streaming) listener.reader.enterCopyBoth(listener);
    for (const chunk of chunks) listener.reader.push(chunk);
    return listener.calls;
  };
  assert.equal(run(pieces(all, sizes)), run([all]));
});

const decoding = target('message decoder', 100, fc.tuple(type, body), ([t, content]) => {
  const message = typed(() => decodeFrame(backend.message(t, content)));
  if (message?.name === 'error') expectTyped(toServerError(message.notice));
});

const value = fc.oneof(
  fc.constant(null),
  fc.constantFrom('7', '1', '0/3000000', '-1', '1e3', '0/0', '', 'physical', '4294967296'),
  fc.constantFrom('../../etc/x', '00000002.history', '0x1', 'FFFFFFFF/FFFFFFFF', 'logical'),
  fc.string({ maxLength: 20 }),
);
const result = fc.record({
  fields: fc.array(fc.record({ name: fc.string({ maxLength: 8 }), typeOid: fc.integer() }), {
    maxLength: 6,
  }),
  rows: fc.array(
    fc.array(
      value.map((v) => (v === null ? null : Buffer.from(v))),
      { maxLength: 6 },
    ),
    { maxLength: 3 },
  ),
  commandTag: fc.string({ maxLength: 8 }),
});
/** Often of the right shape, so that the values are looked at. */
const answer = fc.oneof(
  result,
  fc.array(value, { minLength: 1, maxLength: 5 }).map((row) => ({
    fields: row.map((_, i) => ({ name: `f${i}`, typeOid: 25 })),
    rows: [row.map((v) => (v === null ? null : Buffer.from(v)))],
    commandTag: 'X',
  })),
);

const answers = target('replication answers', 100, answer, (given) => {
  const system = typed(() => replication.parseIdentifySystem(given));
  if (system) assert(system.timeline > 0 && system.flushLsn >= 0n && system.systemId >= 0n);
  const end = typed(() => replication.parseStreamEnd(given));
  if (end?.kind === 'timeline') assert(end.timeline > 0 && end.startLsn < 2n ** 64n);
  const history = typed(() => replication.parseTimelineHistory(given, 2));
  if (history) assert.equal(history.fileName, '00000002.history');
  typed(() => replication.parseReadReplicationSlot(given, 's'));
  typed(() => replication.parseShow(given, 'x'));
  typed(() => replication.parseCreateSlot(given, 's'));
  typed(() => replication.parseDropSlot(given, 's'));
  const position = typed(() => parseBackupPosition(given, 'start'));
  if (position) assert(position.timeline > 0 && position.lsn < 2n ** 64n);
  const tablespaces = typed(() => parseBackupTablespaces(given));
  if (tablespaces) assert(tablespaces.some(({ oid }) => oid === undefined));
});

const BACKUP = [
  backend.newArchive('16388.tar', '/srv/t'),
  backend.archiveData(Buffer.from('tablespace')),
  backend.backupProgress(10n),
  backend.newArchive('base.tar'),
  backend.archiveData(Buffer.alloc(30, 7)),
  backend.newManifest(),
  backend.archiveData(Buffer.from('{}')),
  backend.copyDone(),
];
const backupBytes = fc.oneof(
  damages(5).map((changes) => spoil(Buffer.concat(BACKUP), changes)),
  fc.shuffledSubarray(BACKUP).map((messages) => Buffer.concat(messages)),
);

/** Takes the COPY of a backup; archives have no names but those of the list. */
function takeBackup(chunks: Iterable<Buffer>, framed: boolean): string {
  const calls: string[] = [];
  const names = ['16388.tar', 'base.tar'];
  let lengths = { data: 0, manifest: 0 };
  const stream = new BackupStreamReader(
    {
      tablespaces: [
        { oid: 16388, location: '/srv/t', size: 1 },
        { oid: undefined, location: undefined, size: 1 },
      ],
      ...{ framed, manifest: true },
    },
    {
      onStart() {},
      onArchive: ({ name }) => {
        assert.equal(name, names.shift());
        calls.push(`${JSON.stringify(lengths)} ${name}`);
        lengths = { data: 0, manifest: 0 };
      },
      onData: ({ length }) => {
        lengths.data += length;
      },
      onManifest: ({ length }) => {
        assert.equal(names.length, 0);
        lengths.manifest += length;
      },
      onProgress: (n) => assert(Number.isSafeInteger(n) && calls.push(`progress ${n}`)),
    },
  );
  const reader = new FrameReader({
    onMessage: ({ name }) => {
      if (name === 'copyDone') stream.onCopyDone();
      calls.push(name);
    },
    onCopyData: () => calls.push('outside'),
    onReaderFailure: (error) => {
      expectTyped(error);
      calls.push(error.message);
    },
  });
  stream.onCopyStart();
  reader.enterCopyOut(stream);
  for (const chunk of chunks) reader.push(chunk);
  // Of a message that is cut off, more or less may have come: only whole ones must be the same.
  return calls.join('\n');
}

const backups = target('base backup', 150, fc.tuple(backupBytes, cuts, fc.boolean()), (input) => {
  const [all, sizes, framed] = input;
  assert.equal(takeBackup(pieces(all, sizes), framed), takeBackup([all], framed));
});

const NONCE = 'fuzz';
const attribute = fc.oneof(
  fc.constantFrom(`r=${NONCE}`, `r=${NONCE}more`, 's=c2FsdA==', 's=', 'i=1', 'i=0', 'i=-1'),
  fc.constantFrom('i=99999999999', 'i=1000001', 'v=AAAA', 'e=no', 'm=x', 'r=', 'i=01', ''),
  fc.constant(`v=${Buffer.alloc(32).toString('base64')}`),
  fc.string({ maxLength: 12, unit: 'binary' }),
);
const saslText = fc.oneof(
  { weight: 3, arbitrary: fc.array(attribute, { maxLength: 4 }).map((a) => a.join(',')) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.string({ maxLength: 6 }), fc.base64String({ maxLength: 12 }), fc.nat(3))
      .map(([n, s, i]) => `r=${NONCE}${n},s=${s},i=${i}`),
  },
);
const exchange = fc.array(fc.tuple(fc.boolean(), saslText), { minLength: 1, maxLength: 4 });

/** Whoever does not know the password never gets to `finished`, whatever comes in whatever order. */
const scram = asyncTarget('SCRAM client', 40, exchange, async () => ({
  check: async (messages) => {
    const client = new ScramClient('pencil', 'none', NONCE);
    for (const [first, text] of messages) {
      await typedAsync(async () => (first ? client.respond(text) : client.verify(text)));
      assert.equal(client.finished, false);
    }
  },
}));

export const protocolTargets = [frames, decoding, answers, backups, scram];
