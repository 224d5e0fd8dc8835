import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readLedger } from '../../src/archive/ledger.js';
import { WalReceiver } from '../../src/index.js';
import { formatLsn } from '../../src/lsn.js';
import { START, WAL } from '../fuzz/stream-peer.js';
import { SEGMENT, SYSTEM_ID } from '../simulation/model-wal.js';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory } from '../support/receiving.js';
import { backend, type Identity, ScriptedServer } from '../support/scripted-server.js';

const keep = disposer();
const identity: Identity = {
  systemId: String(SYSTEM_ID),
  segmentSizeMb: 1,
  flushLsn: BigInt(START),
};
const lsn = (n: number) => formatLsn(BigInt(n));
/** Behind the last record that was sent. */
const SENT = WAL.ends.findLast((e) => e.at < START + 300_000)?.at as number;
const WHERE = lsn(SENT);

interface Lie {
  /** next_tli and next_tli_startpos. */
  row: [string, string];
  /** What TIMELINE_HISTORY answers; absent: an error. */
  history?: { name?: string; content: string | null };
  code: string;
  message: RegExp;
}

const two = '00000002.history';
test.each<[string, Lie]>([
  ['the same timeline', { row: ['1', WHERE], code: 'WK_PROTOCOL', message: /unexpected next/ }],
  ['timeline 0', { row: ['0', WHERE], code: 'WK_PROTOCOL', message: /could not parse timeline/ }],
  ['no number', { row: ['../x', WHERE], code: 'WK_PROTOCOL', message: /could not parse timeline/ }],
  [
    'a start beyond what was sent',
    { row: ['2', lsn(SENT + 8)], code: 'WK_PROTOCOL', message: /but reported next timeline 2 to/ },
  ],
  [
    'a timeline without a history',
    { row: ['2', WHERE], code: 'WK_SERVER', message: /TIMELINE_HISTORY/ },
  ],
  [
    'a history file with a path for its name',
    {
      row: ['2', WHERE],
      history: { name: '../../etc/x', content: `1\t${WHERE}\tx\n` },
      code: 'WK_PROTOCOL',
      message: /unexpected history file name for timeline 2: \.\.\/\.\.\/etc\/x/,
    },
  ],
  [
    "another timeline's history file",
    {
      row: ['2', WHERE],
      history: { name: '00000003.history', content: `1\t${WHERE}\tx\n` },
      code: 'WK_PROTOCOL',
      message: /unexpected history file name/,
    },
  ],
  ...[null, '', '# nothing\n\n'].map((content): [string, Lie] => [
    `a history with ${JSON.stringify(content)} in it`,
    {
      row: ['2', WHERE],
      history: { content },
      code: 'WK_PROTOCOL',
      message: /no history of timeline 2: it names no parent/,
    },
  ]),
  ...['x', '1', `1 ${WHERE}\n1 ${WHERE}\n`, '2 0/1', `0\t${WHERE}\n`].map(
    (content): [string, Lie] => [
      `a history with ${JSON.stringify(content)} in it`,
      { row: ['2', WHERE], history: { content }, code: 'WK_PROTOCOL', message: /history file/ },
    ],
  ),
  ...[
    `1\t${lsn(SENT - 8)}\tended before\n`,
    `1\t${lsn(SENT + 8)}\tended behind\n`,
    `1\t0/0\tnever was\n`,
  ].map((content): [string, Lie] => [
    `a history that says ${JSON.stringify(content)}`,
    {
      row: ['2', WHERE],
      history: { content },
      code: 'WK_PROTOCOL',
      message: /whose history says otherwise/,
    },
  ]),
  [
    'a switch point before all that we hold, which the history does not know',
    {
      row: ['2', '0/0'],
      history: { content: `1\t${WHERE}\tx\n` },
      code: 'WK_PROTOCOL',
      message: /ended timeline 1 at 0\/0 in favour of timeline 2/,
    },
  ],
  [
    'a timeline that another one came before',
    {
      row: ['9', WHERE],
      history: { name: '00000009.history', content: `1\t${WHERE}\tx\n5\t${WHERE}\tx\n` },
      code: 'WK_PROTOCOL',
      message: /in favour of timeline 9/,
    },
  ],
])('a server that ends its timeline with %s', async (_what, lie) => {
  const { row, history, code, message } = lie;
  const name = history?.name ?? two;
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      const answer = (query: string) =>
        query.startsWith('TIMELINE_HISTORY') && history
          ? backend.resultSet({ filename: name, content: history.content })
          : undefined;
      await c.startStream({ ...identity, answer });
      c.send(
        backend.xlogData(BigInt(START), WAL.segment(START / SEGMENT).subarray(0, SENT - START)),
      );
      if (index > 0) {
        await c.nextOf('c');
        c.send(backend.copyDone(), backend.commandComplete('COPY 0'), backend.readyForQuery());
        await c.nextOf('X');
        c.close();
        return;
      }
      await c.endStream(backend.resultSet({ next_tli: row[0], next_tli_startpos: row[1] }));
      // Until the client has seen enough and goes.
      await c.serve({ ...identity, answer }).catch(() => {});
    }),
  );
  const directory = archiveDirectory();
  const connection = server.conninfo({ sslmode: 'disable' });
  const receiver = new WalReceiver({ connection, directory, reconnect: false });
  await expect(receiver.run()).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message),
    retryable: expect.any(Boolean),
  });
  // Nothing of the other timeline: no file, no line in the ledger, nothing outside.
  const files = readdirSync(directory).filter((file) => !file.startsWith('.'));
  expect(files).toEqual(['000000010000000000000005.partial']);
  expect(readdirSync(join(directory, '..')).filter((f) => f.includes('history'))).toEqual([]);
  expect((await readLedger(directory))?.lineage.map((l) => l.timeline)).toEqual([1]);

  // An honest server is followed from where the other one left us.
  const abort = new AbortController();
  const again = new WalReceiver({ connection, directory });
  again.on('progress', ({ received }) => {
    if (received === BigInt(SENT)) abort.abort();
  });
  expect(await again.run(abort.signal)).toBe(BigInt(SENT));
  expect(server.errors.map(String)).toEqual([]);
});

test('a server that tells the truth is followed', async () => {
  const content = `1\t${WHERE}\tno reason\n`;
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      const truth = { ...identity, histories: { 2: content } };
      await c.startStream(truth);
      c.send(
        backend.xlogData(BigInt(START), WAL.segment(START / SEGMENT).subarray(0, SENT - START)),
      );
      await c.endStream(backend.resultSet({ next_tli: '2', next_tli_startpos: WHERE }));
      const start = await c.serve(truth);
      expect(start).toMatchObject({ timeline: 2, lsn: BigInt(START) });
      c.send(backend.copyBoth());
    }),
  );
  const directory = archiveDirectory();
  const abort = new AbortController();
  const receiver = new WalReceiver({
    connection: server.conninfo({ sslmode: 'disable' }),
    directory,
  });
  receiver.on('timeline', () => abort.abort());
  await receiver.run(abort.signal);
  expect(readdirSync(directory)).toContain(two);
  expect((await readLedger(directory))?.lineage.map((l) => l.timeline)).toEqual([1, 2]);
});
