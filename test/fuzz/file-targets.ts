import assert from 'node:assert/strict';
import { linkSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import fc from 'fast-check';
import { LEDGER_FILE, Ledger } from '../../src/archive/ledger.js';
import { decodeLine, encodeLine, type LedgerEntry } from '../../src/archive/ledger-entry.js';
import { exitCodeOf } from '../../src/cli/commands/fetch.js';
import { Identities } from '../../src/codec/age/identities.js';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { decompressFile } from '../../src/codec/codec.js';
import type { CompressionMethod } from '../../src/codec/codecs.js';
import { LZ4_BLOCK_SIZE, Lz4FrameEncoder } from '../../src/codec/lz4/frame.js';
import { decodeStored, encodeBytes } from '../../src/codec/stages.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import { listArchive } from '../../src/list/list.js';
import type { Lsn } from '../../src/lsn.js';
import { WalVerifier } from '../../src/wal/verifier.js';
import { sampleArchive } from '../support/archives.js';
import { removeScratch, scratchDir } from '../support/scratch.js';
import { asyncTarget, expectTyped, typed, typedAsync } from './harness.js';
import { type Damage, damages, spoil } from './inputs.js';

/** A directory for the inputs of one target, removed behind it. */
async function inDirectory<T>(check: (directory: string, input: T) => Promise<void>) {
  const directory = scratchDir('fuzz');
  return {
    check: (input: T) => check(directory, input),
    done: async () => removeScratch(directory),
  };
}

// --- the ledger ----------------------------------------------------------------------------

const ENTRIES: LedgerEntry[] = [
  { type: 'open', systemId: 77n, segmentSize: 1 << 20, version: '1' },
  { type: 'timeline', timeline: 1, start: 0x500_0000n as Lsn, why: 'first start' },
  { type: 'complete', lsn: 0x600_0000n as Lsn, timeline: 1 },
  { type: 'gap', from: 0x600_0000n as Lsn, to: 0x700_0000n as Lsn, timeline: 1, why: 'x' },
];
const LEDGER = ENTRIES.map((entry) => encodeLine([entry])).join('');
/** A line of another writer: its checksum is right, its content anything. */
const foreignLine = fc
  .oneof(
    fc.jsonValue(),
    fc.array(
      fc.oneof(
        fc.jsonValue(),
        fc.record(
          {
            type: fc.constantFrom('open', 'timeline', 'complete', 'flushed', 'gap', 'toString'),
            systemId: fc.constantFrom('77', 'x', 1.5, null),
            lsn: fc.constantFrom('0/1', 'x', 5, null),
            start: fc.constant('0/1'),
            timeline: fc.constantFrom(1, 'x', null),
          },
          { requiredKeys: [] },
        ),
      ),
      { maxLength: 3 },
    ),
  )
  .map((value) => encodeLine(value as never))
  .filter((line) => line.length > 1);
const ledgerText = fc.oneof(
  { weight: 3, arbitrary: damages(3).map((changes) => spoil(Buffer.from(LEDGER), changes)) },
  { weight: 1, arbitrary: foreignLine.map((line) => Buffer.from(LEDGER + line)) },
  { weight: 1, arbitrary: foreignLine.map((line) => Buffer.from(line)) },
);

const ledger = asyncTarget('ledger reader', 30, ledgerText, () =>
  inDirectory(async (directory, text) => {
    for (const line of text.toString().split('\n')) typed(() => decodeLine(line));
    const path = join(directory, LEDGER_FILE);
    writeFileSync(path, text);
    const opened = await typedAsync(() => Ledger.open(directory, { sync: false }));
    // What could not be read stays as it was, for somebody to look at.
    if (!opened) assert(readFileSync(path).equals(text));
    else {
      assert.equal(opened.state.systemId, 77n);
      await opened.close();
    }
    rmSync(path);
  }),
);

// --- compressed files ----------------------------------------------------------------------

const CONTENT = Buffer.concat(
  Array.from({ length: 40 }, (_, i) => Buffer.alloc(50 + i * 7, i % 5 ? i : `walkeep ${i} `)),
);
const GZIP = gzipSync(CONTENT);
const encoder = new Lz4FrameEncoder();
const LZ4 = Buffer.concat([
  encoder.header(CONTENT.length),
  Buffer.from(encoder.block(CONTENT.subarray(0, LZ4_BLOCK_SIZE))),
  encoder.end(),
]);

const ZSTD = Buffer.from(await encodeBytes(CONTENT, { codec: 'zstd' }));
const SECRET = await generateX25519Identity();
const identities = await Identities.parse(SECRET);
const recipients = await parseRecipients([await identityToRecipient(SECRET)]);
const STORED = Buffer.from(await encodeBytes(CONTENT, { codec: 'zstd', recipients }));

/** What is stored elsewhere, as it may come back. */
const stored = asyncTarget('stored object', 20, fc.tuple(damages(3), fc.nat(900)), async () => ({
  check: async ([changes, size]: [Damage[], number]) => {
    const bytes = spoil(STORED, changes);
    const chunks = async function* () {
      for (let at = 0; at < bytes.length; at += size + 1) yield bytes.subarray(at, at + size + 1);
    };
    const decoding = decodeStored(chunks(), {
      identities,
      name: 'stored',
      limit: 2 * CONTENT.length,
    });
    const parts: Uint8Array[] = [];
    await typedAsync(async () => {
      for await (const chunk of decoding) parts.push(chunk.slice());
    });
    const result = await decoding.result.catch(() => undefined);
    // Damage may hide that it is encrypted at all; it never makes other content of it.
    if (result?.stages.includes('age')) {
      assert(result.complete && Buffer.concat(parts).equals(CONTENT));
    }
  },
  done: async () => {},
}));

const compressed = (method: CompressionMethod, share: number, good: Buffer) =>
  asyncTarget(
    `${method} reader`,
    share,
    fc.tuple(
      damages(3),
      fc.oneof(fc.constant(new Uint8Array(0)), fc.uint8Array({ maxLength: 60 })),
    ),
    () =>
      inDirectory<[Damage[], Uint8Array]>(async (directory, [changes, behind]) => {
        const bytes = Buffer.concat([spoil(good, changes), behind]);
        const path = join(directory, 'file');
        writeFileSync(path, bytes);
        const parts: Uint8Array[] = [];
        const limit = 2 * CONTENT.length;
        const take = (chunk: Uint8Array) => void parts.push(chunk.slice());
        const result = await typedAsync(() => decompressFile(path, method, take, { limit }));
        assert(result);
        const text = Buffer.concat(parts);
        assert.equal(text.length, result.bytes);
        assert(text.length <= limit);
        if (bytes.equals(good)) assert(result.end === 'complete' && text.equals(CONTENT));
      }),
  );

// --- fetch ---------------------------------------------------------------------------------

interface Garbage {
  changes: Damage[];
  which: number;
  suffix: '' | '.gz' | '.lz4' | '.partial' | '.gz.partial';
  ledger: Uint8Array | undefined;
  asks: number;
}
const garbage: fc.Arbitrary<Garbage> = fc.record({
  changes: damages(4),
  which: fc.nat(2),
  suffix: fc.constantFrom('', '', '.gz', '.lz4', '.partial', '.gz.partial'),
  ledger: fc.option(fc.uint8Array({ maxLength: 20 }), { nil: undefined, freq: 4 }),
  asks: fc.nat(3),
});

const fetching = asyncTarget('fetch and list on damaged archives', 15, garbage, async () => {
  const whole = sampleArchive(3);
  const wanted = whole.names.map((name) => name.slice(0, 24)).concat('00000002.history');
  const root = scratchDir('fuzz');
  const directory = join(root, 'archive');
  const target = join(root, 'target');
  return {
    check: async ({ changes, which, suffix, ledger: text, asks }) => {
      mkdirSync(directory);
      whole.names.forEach((name, i) => {
        if (i !== which) linkSync(join(whole.directory, name), join(directory, name));
      });
      const bytes = readFileSync(join(whole.directory, whole.names[which] as string));
      const file = `${wanted[which]}${suffix}`;
      writeFileSync(join(directory, file), spoil(bytes, changes));
      if (text) writeFileSync(join(directory, LEDGER_FILE), text);
      const name = wanted[asks] as string;
      const result = await fetchFile({ places: [directory], name, target }).catch((error) => {
        expectTyped(error);
        assert(exitCodeOf(error) > 125);
      });
      const placed = readdirSync(root).filter((entry) => entry !== 'archive');
      if (result?.found) {
        assert.deepEqual(placed, ['target']);
        const served = readFileSync(target);
        assert.equal(served.length, 1 << 20);
        const startLsn = whole.segmentStart(asks);
        const verifier = new WalVerifier({ startLsn, segmentSize: 1 << 20, timeline: 1 });
        const fault = verifier.feed(served);
        assert(fault === undefined || fault.kind === 'zeros' || result.path.includes('.partial'));
        rmSync(target);
      } else assert.deepEqual(placed, [], 'nothing is put in place');
      await typedAsync(() => listArchive(directory));
      rmSync(directory, { recursive: true });
    },
    done: async () => {
      removeScratch(root);
      removeScratch(whole.directory);
    },
  };
});

export const fileTargets = [
  ledger,
  compressed('gzip', 20, GZIP),
  compressed('lz4', 20, LZ4),
  compressed('zstd', 20, ZSTD),
  stored,
  fetching,
];
