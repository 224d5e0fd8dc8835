import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { faultLine } from '../../../src/serve/config/fault.js';
import { parseConfig } from '../../../src/serve/config/read.js';
import { run } from '../../cli/run.js';
import { scratchDir } from '../../support/scratch.js';
import { BROKEN, ENVIRONMENT, SECRET } from './broken.js';

/** The same each time, unless others are asked for. */
const FUZZ = {
  numRuns: Number(process.env.WALKEEP_FUZZ_RUNS ?? 150),
  seed: Number(process.env.WALKEEP_FUZZ_SEED ?? 20),
};

const parse = (text: string | Uint8Array) => parseConfig(Buffer.from(text), ENVIRONMENT);

/** Each fault without the name of the file. */
const faultsOf = async (text: string | Uint8Array) =>
  (await parse(text)).faults.map((fault) => faultLine('f', fault).slice(2));

function fileWith(text: string): string {
  const file = join(scratchDir('config'), 'walkeep.yaml');
  writeFileSync(file, text);
  return file;
}

const FULL = `version: 1
control: { socket: /run/walkeep/control.sock }
metrics: { listen: "[::1]:8481" }
defaults: { slot: walkeep, ensure_slot: true, synchronous: true, compress: gzip }
servers:
  shop:
    connection: host=\${NAME},pg2 user=replicator sslmode=verify-full
    password_file: /etc/walkeep/shop
    directory: /var/lib/walkeep/shop/
    members: { hosts: [pg1, "pg2:5433", "[::1]"], slots: walkeep }
  5:
    connection: "postgresql://me@db/$\${x}"
    directory: /5
    slot: "\${N}"
    synchronous: \${YES}
    ensure_slot: false
    compress: gzip:6
    allow_group_access: true
`;

it('reads all that there is, with defaults', async () => {
  const { config, faults } = await parse(FULL);
  expect(faults).toEqual([]);
  expect(config?.control).toEqual({ socket: '/run/walkeep/control.sock' });
  expect(config?.metrics).toEqual({ host: '::1', port: 8481 });
  const shop = config?.servers.find(({ name }) => name === 'shop');
  expect(shop).toEqual({
    name: 'shop',
    connection: 'host=x,pg2 user=replicator sslmode=verify-full',
    passwordFile: '/etc/walkeep/shop',
    directory: '/var/lib/walkeep/shop',
    slot: 'walkeep',
    ensureSlot: true,
    synchronous: true,
    compression: { method: 'gzip' },
    members: { hosts: ['pg1', 'pg2:5433', '[::1]'], slots: 'walkeep' },
  });
  const five = config?.servers.find(({ name }) => name === '5');
  expect(five).toEqual({
    name: '5',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: what stands for it is taken as it is
    connection: 'postgresql://me@db/${x}',
    directory: '/5',
    slot: '17',
    ensureSlot: false,
    synchronous: true,
    compression: { method: 'gzip', level: 6 },
    allowGroupAccess: true,
  });
});

it('takes a smallest file, with a byte order mark and lines of Windows', async () => {
  const text =
    '\ufeffversion: 1\r\nservers:\r\n  a:\r\n    connection: host=db\r\n    directory: /a\r\n';
  const { config } = await parse(text);
  expect(config?.servers).toMatchObject([{ name: 'a', connection: 'host=db', synchronous: false }]);
});

it.each(BROKEN)('refuses %s', async (_name, lines, faults) => {
  const found = await faultsOf(`${lines.join('\n')}\n`);
  expect(found).toEqual(faults);
  expect(found.join('\n')).not.toContain(SECRET);
});

it('says where it is no UTF-8', async () => {
  const bytes = Buffer.from('version: 1\nservers: \xff\n', 'latin1');
  expect(await faultsOf(bytes)).toEqual(['2:10: it is not UTF-8']);
  // Behind the character that stands for such bytes, and in the middle of another one.
  const later = Buffer.concat([Buffer.from('a: "\ufffd'), Buffer.from([0xe2, 0x82, 0x22])]);
  expect(await faultsOf(later)).toEqual(['1:6: it is not UTF-8']);
  expect(await faultsOf(Buffer.from([0x61, 0xe2]))).toEqual(['1:2: it is not UTF-8']);
});

it('tells of what is nested too deeply once, and of what is too large not more', async () => {
  expect(await faultsOf('['.repeat(5000))).toHaveLength(1);
  expect(await faultsOf(Buffer.alloc(2 ** 20 + 1, 'a'))).toEqual(['1:1: it is larger than 1 MiB']);
  const blocks = Array.from({ length: 40 }, (_, depth) => `${' '.repeat(depth)}a:`);
  expect((await faultsOf(blocks.join('\n'))).join()).toContain('nested too deeply');
});

it('takes any text without failing, and shows nothing of its values', async () => {
  const parts = [
    ...FULL.split(/(\s+)/),
    '{',
    '}',
    '[',
    ']',
    '- ',
    '"',
    "'",
    '|',
    '&a ',
    '*a ',
    '\t',
  ];
  const text = fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom(...parts) },
      { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
    ),
    { maxLength: 80 },
  );
  await fc.assert(
    fc.asyncProperty(text, async (words) => {
      const { config, faults } = await parse(words.join(''));
      expect(config === undefined).toBe(faults.length > 0);
      for (const { line, column } of faults) expect(Math.min(line, column)).toBeGreaterThan(0);
    }),
    FUZZ,
  );
});

it('takes bytes cut out of and put into a good file', async () => {
  const good = Buffer.from(FULL);
  const change = fc.record({
    at: fc.nat(good.length),
    cut: fc.nat(20),
    put: fc.uint8Array({ maxLength: 8 }),
  });
  await fc.assert(
    fc.asyncProperty(change, async ({ at, cut, put }) => {
      const bytes = Buffer.concat([good.subarray(0, at), put, good.subarray(at + cut)]);
      const { config, faults } = await parse(bytes);
      expect(config === undefined).toBe(faults.length > 0);
    }),
    FUZZ,
  );
});

it('shows no value, wherever a secret stands', async () => {
  const lines = FULL.split('\n');
  const secret = 'kEtZeR99';
  for (let i = 0; i < lines.length; i += 1) {
    for (const value of [secret, `"${secret}"`, `[${secret}]`, `password=${secret}`]) {
      const changed = lines.map((line, at) =>
        at === i ? line.replace(/:.*/, `: ${value}`) : line,
      );
      expect((await faultsOf(changed.join('\n'))).join('\n')).not.toContain(secret);
    }
  }
});

it('prints each fault with its place, and ends with 1', async () => {
  const file = fileWith('version: 1\nserver: {}\nservers:\n  a: { connection: x, directory: y }\n');
  const { code, stdout, stderr } = await run('walkeep', 'config', 'check', '-c', file);
  expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
  expect(stdout.split('\n')).toEqual([
    `${file}:2:1: unknown key "server"; did you mean "servers"?`,
    `${file}:4:20: servers.a.connection: must be "keyword=value …" or a URI`,
    `${file}:4:34: servers.a.directory: must be an absolute path`,
    '',
  ]);
});

it('says that a configuration is valid', async () => {
  const file = fileWith(FULL.replaceAll(/\$\{\w+\}/g, 'true'));
  const { code, stdout } = await run('walkeep', 'config', 'check', '--config', file);
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${file}: valid, 2 servers\n` });
});

it('refuses a call that says nothing', async () => {
  for (const args of [[], ['check'], ['print'], ['check', 'more', '-c', '/f']]) {
    expect((await run('walkeep', 'config', ...args)).code).toBe(1);
  }
  const missing = await run('walkeep', 'config', 'check', '-c', '/nowhere/walkeep.yaml');
  expect(missing.code).toBe(1);
  expect(missing.stderr).toContain('could not read file "/nowhere/walkeep.yaml"');
});

it('prints a JSON schema that refuses what is unknown', async () => {
  const { code, stdout } = await run('walkeep', 'config', 'schema');
  expect(code).toBe(0);
  const schema = JSON.parse(stdout);
  expect(schema).toMatchObject({
    title: 'walkeep.yaml',
    required: ['version', 'servers'],
    additionalProperties: false,
  });
  const server = schema.properties.servers.additionalProperties;
  expect(server).toMatchObject({
    required: ['connection', 'directory'],
    additionalProperties: false,
  });
  for (const [name, key] of Object.entries<{ description?: string }>(server.properties)) {
    expect([name, key.description?.length]).toEqual([name, expect.any(Number)]);
  }
});
