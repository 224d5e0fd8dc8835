import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { scratchDir } from '../support/scratch.js';

const DIST = new URL('../../dist/', import.meta.url);

/** Takes all descriptors but one that the process may have, until the answer is there. */
const PROGRAM = `
import { openSync, closeSync, writeSync } from 'node:fs';
const held = [];
const { ask } = await import(process.argv[2]);
try { for (;;) held.push(openSync('/dev/null')); } catch {}
// One to read a file with; a pipe has two.
closeSync(held.pop());
// What is thrown without a listener would end the process instead.
const answer = await ask().then(() => 'an answer', (e) => e.code + ' ' + e.retryable);
for (const fd of held) closeSync(fd);
writeSync(1, answer);
`;

const ASKED = {
  'the identity command': [
    "import { outputOf } from 'DIST/codec/age/command.js';",
    "export const ask = () => outputOf('true', {});",
    'WK_ENCRYPTED false',
  ],
  'the program for credentials': [
    "import { resolveCredentials } from 'DIST/store/s3/credentials/credentials.js';",
    "import { parsePlace } from 'DIST/store/place.js';",
    "export const ask = async () => resolveCredentials(parsePlace('s3://bucket/x?profile=p'), process.env).get();",
    'WK_STORE_ACCESS false',
  ],
  ssh: [
    "import { openSshStore } from 'DIST/store/ssh/ssh-store.js';",
    "import { parsePlace } from 'DIST/store/place.js';",
    "const store = openSshStore(parsePlace('ssh://host/dir'), { attempts: 1, timeout: 20000 });",
    "export const ask = () => store.get('key');",
    'WK_STORE_UNCERTAIN true',
  ],
} as const;

it.each(Object.keys(ASKED) as (keyof typeof ASKED)[])(
  '%s without a descriptor left fails with an error of its own',
  (what) => {
    const directory = scratchDir('descriptors');
    const lines = ASKED[what].slice(0, -1).join('\n');
    const base = fileURLToPath(DIST).replace(/\/$/, '');
    writeFileSync(join(directory, 'ask.mjs'), lines.replaceAll('DIST', base));
    writeFileSync(join(directory, 'program.mjs'), PROGRAM);
    const config = join(directory, 'config');
    writeFileSync(config, '[profile p]\ncredential_process = /bin/true\n');
    const { stdout, stderr, status } = spawnSync(
      '/bin/sh',
      ['-c', 'ulimit -n 128; exec "$0" "$@"', process.execPath].concat(
        join(directory, 'program.mjs'),
        join(directory, 'ask.mjs'),
      ),
      { encoding: 'utf8', env: { ...process.env, AWS_CONFIG_FILE: config } },
    );
    expect({ stdout, stderr, status }).toEqual({
      stdout: ASKED[what].at(-1),
      stderr: '',
      status: 0,
    });
  },
);
