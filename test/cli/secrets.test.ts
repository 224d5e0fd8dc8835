import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { runCli } from '../../src/cli/main.js';
import type { ProgramName } from '../../src/cli/option-spec.js';
import { scratchDir } from '../support/scratch.js';

const CANARY = 'kAnari3nvogel';

/** Runs in this process, stack traces on; everything that was printed. */
async function printed(program: ProgramName, argv: string[], env: NodeJS.ProcessEnv = {}) {
  let text = '';
  const sink = () =>
    new Writable({
      write(chunk, _, done) {
        text += chunk;
        done();
      },
    });
  const code = await runCli(argv, program, {
    stdout: sink(),
    stderr: sink(),
    env: { HOME: '/nonexistent', WALKEEP_DEBUG: '1', ...env },
  });
  return { code, text };
}

/** Connection strings with a password to a place where nobody listens. */
const FORMS = [
  `host=127.0.0.1 port=1 user=u password=${CANARY}`,
  `host=127.0.0.1 port=1 password = '${CANARY}'`,
  `host=127.0.0.1 port=1 sslpassword=${CANARY} sslmode=nonsense`,
  `password=${CANARY} hots=127.0.0.1`,
  `postgresql://u:${CANARY}@127.0.0.1:1/replication`,
  `postgres://u:${CANARY}@127.0.0.1:none/`,
  `postgresql://127.0.0.1:1/?user=u&password=${CANARY}`,
  `postgresql://127.0.0.1:1/?password=${CANARY}&hots=x`,
  `postgresql://u:%zz${CANARY}@127.0.0.1:1`,
  `postgresql://u:x/${CANARY}@127.0.0.1:1`,
];

/** Command lines with the string where it belongs, and wherever else a hand may put it. */
const LINES: ((form: string, dir: string) => string[])[] = [
  (c, d) => ['receive', '-n', '-v', '-w', '-D', d, '-d', c],
  (c, d) => ['receive', '-n', '-v', '-w', '-D', d, `--dbname=${c}`, '-S', 's', '--synchronous'],
  (c) => ['receive', '-w', '-v', '--create-slot', '-S', 's', '-d', c],
  (c) => ['slot', 'create', 's', '-w', '-d', c],
  (c) => ['slot', 'list', '-w', '-d', c],
  (c, d) => ['check', '-w', '-D', d, '-d', c],
  (c, d) => ['check', '-w', '--json', '-D', d, '-d', c],
  (c, d) => ['check', '-w', '--nagios', '-D', d, '-d', c],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-h', c],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-p', c, '-h', '127.0.0.1'],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-U', c, '-h', '127.0.0.1', '-p', '1'],
  (c) => ['receive', '-n', '-w', '-D', c],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-S', c, '-h', '127.0.0.1', '-p', '1'],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-E', c],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-s', c],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-Z', c],
  (c, d) => ['receive', '-n', '-w', '-D', d, '-d', '-w', c],
  (c, d) => ['receive', '-D', d, c],
  (c) => ['receive', `--dbnme=${c}`],
  (c) => ['receive', `--no-loop=${c}`],
  (c) => ['receive', `--no=${c}`],
  (c) => [c],
  (c) => [`--${c}`],
  (c) => ['slot', c],
  (c) => ['slot', 'create', 'a', c],
  (c) => ['slot', 'list', c],
  (c) => ['verify', c],
  (c, d) => ['verify', d, c],
  (c, d) => ['verify', `--since=${c}`, d],
  (c) => ['list', c],
  (c) => ['key', c],
  (c) => ['key', 'check', '--identity', '/dev/null', c],
  (c, d) => ['key', 'check', '--identity', '/dev/null', d, c],
  (c) => ['find', c],
  (c, d) => ['find', '--after', c, d],
  (c, d) => ['cleanup', d, c],
  (c) => ['cleanup', c, '000000010000000000000001'],
  (c) => ['push', c, '000000010000000000000001'],
  (c) => ['fetch', c, '000000010000000000000001', 'x'],
  (c, d) => ['fetch', d, c, 'x'],
  (c, d) => ['fetch', d, '000000010000000000000001', 'x', c],
];

function expectNone(text: string): void {
  expect(text).not.toContain(CANARY);
  expect(text).not.toContain(encodeURIComponent(CANARY));
}

/** No file below a directory has it in its name or content. */
function expectNoneIn(directory: string): void {
  for (const name of readdirSync(directory, { recursive: true }) as string[]) {
    expectNone(name);
    const path = join(directory, name);
    if (statSync(path).isFile()) expectNone(readFileSync(path, 'latin1'));
  }
}

describe('a password is not printed', () => {
  it.each(FORMS)(
    '%s',
    async (form) => {
      const directory = scratchDir('secrets');
      for (const line of LINES) {
        const argv = line(form, directory);
        const { code, text } = await printed('walkeep', argv);
        expect([argv[0], code]).not.toEqual([argv[0], 0]);
        expect(text).not.toBe('');
        expectNone(text);
        if (argv[0] === 'receive') expectNone((await printed('pg_receivewal', argv.slice(1))).text);
      }
      expectNoneIn(directory);
    },
    60_000,
  );

  it('from the environment, a password file or a service file', async () => {
    const directory = scratchDir('secrets');
    const files = scratchDir('home');
    const passfile = join(files, 'pgpass');
    writeFileSync(passfile, `*:*:*:*:${CANARY}\n`, { mode: 0o600 });
    const open = join(files, 'open');
    writeFileSync(open, `*:*:*:*:${CANARY}\n`, { mode: 0o644 });
    const service = join(files, 'service');
    writeFileSync(
      service,
      `[good]\nhost=127.0.0.1\nport=1\npassword=${CANARY}\n[bad]\npassword=${CANARY}\nnonsense ${CANARY}\n`,
    );
    const place = { PGHOST: '127.0.0.1', PGPORT: '1' };
    const environments: NodeJS.ProcessEnv[] = [
      { ...place, PGPASSWORD: CANARY },
      { ...place, PGPASSFILE: passfile },
      { ...place, PGPASSFILE: open },
      { PGSERVICEFILE: service, PGSERVICE: 'good' },
      { PGSERVICEFILE: service, PGSERVICE: 'bad' },
      { ...place, PGPASSWORD: CANARY, PGSSLMODE: 'nonsense' },
    ];
    for (const env of environments) {
      for (const argv of [
        ['receive', '-n', '-v', '-D', directory],
        ['check', '-D', directory],
        ['slot', 'list'],
      ]) {
        const { code, text } = await printed('walkeep', [...argv, '-w'], env);
        expect(code).not.toBe(0);
        expectNone(text);
      }
    }
    expectNoneIn(directory);
  });
});
