import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { Identities } from '../../src/codec/age/identities.js';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { decodeBytes, decodeStored, encodeBytes, encodeSegment } from '../../src/codec/stages.js';
import { scratchDir } from '../support/scratch.js';
import { findTool } from '../support/tools.js';

const age = findTool('age');
const keygen = findTool('age-keygen');
const zstd = findTool('zstd');
const name = '000000010000000000000007';

let dir: string;
beforeEach(() => {
  dir = scratchDir('age');
});

const run = (tool: string | undefined, args: string[], input?: Uint8Array): Buffer =>
  execFileSync(tool as string, args, {
    input,
    maxBuffer: 1 << 28,
    stdio: ['pipe', 'pipe', 'ignore'],
  });

/** A key of age-keygen's own; gives the recipient. */
function makeKey(file: string): string {
  writeFileSync(join(dir, file), run(keygen, []));
  return run(keygen, ['-y', join(dir, file)])
    .toString()
    .trim();
}

function sample(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i++) bytes[i] = i % 5 === 0 ? (i * 2654435761) >>> 24 : i >> 9;
  return bytes;
}

const SIZES = [0, 1, 65_535, 65_536, 65_537, 131_072, 1_000_003];

describe.skipIf(!age || !keygen || !zstd)(
  'the age and zstd programs (age or zstd is absent)',
  () => {
    it('restore what we store without us, with any of the identities', async () => {
      const names = [makeKey('offline'), makeKey('online')];
      const recipients = await parseRecipients(names);
      for (const size of SIZES) {
        const plain = sample(size);
        const stored = join(dir, 'stored');
        writeFileSync(stored, await encodeBytes(plain, { codec: 'zstd', recipients }));
        for (const key of ['offline', 'online']) {
          const pipe = 'age -d -i "$1" "$2" | zstd -dcq';
          const out = run('sh', ['-c', pipe, 'sh', join(dir, key), stored]);
          expect(out.equals(plain)).toBe(true);
        }
        writeFileSync(stored, await encodeBytes(plain, { recipients }));
        const open = run(age, ['-d', '-i', join(dir, 'online'), stored]);
        expect(open.equals(plain)).toBe(true);
      }
      makeKey('stranger');
      expect(() => run(age, ['-d', '-i', join(dir, 'stranger'), join(dir, 'stored')])).toThrow();
    });

    it('write what we read', async () => {
      const recipient = makeKey('key');
      const identities = await Identities.fromFile(join(dir, 'key'));
      expect(identities.recipients).toEqual([recipient]);
      for (const size of SIZES) {
        const plain = sample(size);
        const zipped = run(zstd, ['-cq'], plain);
        const stored = run(age, ['-r', recipient, '-r', makeKey('other')], zipped);
        const { content, stages, complete } = await decodeBytes(stored, { identities, name });
        expect([stages, complete, Buffer.compare(content, plain)]).toEqual([
          ['zstd', 'age'],
          true,
          0,
        ]);
        const bare = run(age, ['-r', recipient], plain);
        expect(Buffer.compare((await decodeBytes(bare, { identities, name })).content, plain)).toBe(
          0,
        );
      }
    });

    it('are met piece by piece: a large segment takes no more memory', async () => {
      const recipients = await parseRecipients([makeKey('key')]);
      const identities = await Identities.fromFile(join(dir, 'key'));
      const [chunk, count] = [sample(1 << 20), 256];
      const plain = async function* () {
        for (let i = 0; i < count; i++) yield chunk;
      };
      const stored = encodeSegment(plain(), { codec: 'zstd', level: 1, recipients });
      const before = process.memoryUsage();
      let [most, bytes] = [0, 0];
      for await (const piece of decodeStored(stored, { identities, name })) {
        bytes += piece.length;
        const { external, heapUsed } = process.memoryUsage();
        most = Math.max(most, external + heapUsed - before.external - before.heapUsed);
      }
      expect(bytes).toBe(count << 20);
      expect(most).toBeLessThan(100 << 20);
    });
  },
);

describe('the identity command', () => {
  const script = (text: string): string => {
    const path = join(dir, 'command');
    writeFileSync(path, `#!/bin/sh\n${text}\n`);
    chmodSync(path, 0o700);
    return path;
  };
  const failure = (command: string | readonly string[], options = {}) =>
    Identities.fromCommand(command, options).then(
      () => expect.fail('it gave identities'),
      (e) => e,
    );

  it.skipIf(!keygen)(
    'prints them, gets its arguments as they are, and no shell looks at it',
    async () => {
      const recipient = makeKey('key');
      const command = script(`[ "$1" = '$(id); *' ] && [ $# = 1 ] && cat '${join(dir, 'key')}'`);
      const { recipients } = await Identities.fromCommand(`'${command}' '$(id); *'`);
      expect(recipients).toEqual([recipient]);
      expect((await Identities.fromCommand([command, '$(id); *'])).recipients).toEqual([recipient]);
    },
  );

  it('says in one line what went wrong, and never what it printed', async () => {
    const path = script(
      'echo AGE-SECRET-KEY-1NONSENSE; echo first >&2; echo "no token" >&2; exit 3',
    );
    const failed = await failure(path);
    expect(failed).toMatchObject({ code: 'WK_ENCRYPTED' });
    expect(failed.message).toBe(`the identity command "${path}" failed with exit code 3: no token`);
    const nonsense = await failure(script('echo; echo AGE-SECRET-KEY-1NONSENSE'));
    expect(nonsense.message).toBe(
      'line 2 of the output of the identity command is no age identity',
    );
    expect((await failure(script('kill -9 $$'))).message).toContain('was ended by SIGKILL');
    expect((await failure(script('true'))).message).toContain('there is no age identity in');
    expect((await failure(join(dir, 'absent'))).message).toContain('could not be run');
    expect(await failure('  ')).toMatchObject({ code: 'WK_USAGE' });
  });

  it('is not waited for without end', async () => {
    const forever = script('exec sleep 1000');
    expect((await failure(forever, { timeout: 100 })).message).toContain('gave no answer within');
    const stop = new AbortController();
    const failed = failure(forever, { signal: stop.signal });
    stop.abort(new Error('stopped'));
    expect((await failed).message).toBe('stopped');
    expect((await failure(script('yes'))).message).toContain('printed more than identities');
  });
});

it('is loaded for what is encrypted only', () => {
  for (const file of ['../../src/codec/stages.ts', '../../src/codec/age/identities.ts']) {
    const text = readFileSync(new URL(file, import.meta.url), 'utf8');
    expect(text).not.toMatch(/^import (?!type)[^;]*'age-encryption'/m);
  }
});
