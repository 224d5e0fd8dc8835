import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/serve/config/read.js';
import { run } from '../cli/run.js';
import { packageRoot, scratchDir } from '../support/scratch.js';
import { COMMANDS, OPTIONS, parse, parseOptions } from './command-line.js';
import {
  anchors,
  blocksIn,
  blocksOf,
  DOCUMENTS,
  inlineCode,
  links,
  readText,
  settingsOf,
} from './documents.js';
import { commandsOf } from './shell.js';

const exec = promisify(execFile);

/** Blocks that another test reads, and those that are only shown. */
const LANGUAGES = ['sh', 'sql', 'conf', 'hba', 'json', 'ts', 'text', 'yaml', ''];

/** Options of other programs that the documents name. */
const FOREIGN = [
  ...['--allow-group-access', '--partial', '--stop-timeout', '--wal-segsize'],
  // Of curl.
  '--fail',
];

/** Programs that the documents use beside ours. */
const PROGRAMS = [
  ...[
    'psql',
    'pg_basebackup',
    'pg_ctl',
    'cat',
    'cp',
    'gzip',
    'mv',
    'tar',
    'mkdir',
    'touch',
    'install',
    'npm',
    'npx',
    'systemctl',
  ],
  ...['journalctl', 'podman', 'kubectl', 'useradd'],
  ...['aws', 'curl', 'age', 'age-keygen', 'zstd', 'openssl', 'tee'],
];

const ours = (words: readonly string[]) => words[0] === 'walkeep' || words[0] === 'pg_receivewal';

/** The words of a command without the variables that are set for it. */
const bare = (words: readonly string[]) =>
  words.slice(words.findIndex((word) => !/^[A-Z_]+=/.test(word)));

test('the program knows every command', async () => {
  const { stdout } = await run('walkeep', '--help');
  const names = [...stdout.matchAll(/^ {2}walkeep (\w+)/gm)].map((m) => m[1]);
  expect(names.sort()).toEqual([...COMMANDS.keys()].sort());
});

describe.each(DOCUMENTS)('%s', (file) => {
  test('links lead somewhere', () => {
    for (const link of links(file)) {
      if (/^https?:/.test(link)) continue;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? file : normalize(join(dirname(file), path));
      expect(existsSync(join(packageRoot, target)), link).toBe(true);
      if (anchor !== undefined) expect(anchors(target), link).toContain(anchor);
    }
  });

  test('blocks are in a language that is tested', () => {
    for (const { place, language } of blocksOf(file)) expect(LANGUAGES, place).toContain(language);
  });

  test('shell commands are ones that exist, with options that exist', async () => {
    for (const { place, language, text } of blocksOf(file)) {
      if (language !== 'sh') continue;
      await exec('sh', ['-n', '-c', text]);
      const commands = commandsOf(text.replaceAll(/\$\((?:[^()]*)\)/g, 'output')).map(bare);
      for (const words of commands) {
        if (!ours(words)) expect(PROGRAMS, `${place}: ${words.join(' ')}`).toContain(words[0]);
        else expect(() => parse(words), `${place}: ${words.join(' ')}`).not.toThrow();
      }
    }
  });

  test('commands and options in the text exist', () => {
    for (const code of inlineCode(file)) {
      const words = code.split(' ');
      if (/^walkeep [a-z-]/.test(code)) expect(() => parseOptions(words), code).not.toThrow();
      for (const word of words) {
        const option = /^--[a-z][a-z-]+/.exec(word)?.[0];
        if (option && !words.includes('walkeep')) {
          expect([...OPTIONS, ...FOREIGN], code).toContain(option);
        }
      }
    }
  });

  test('settings hold commands that exist', () => {
    for (const { place, language, text } of blocksOf(file)) {
      if (language !== 'conf') continue;
      for (const [name, value] of Object.entries(settingsOf(text))) {
        if (!name.endsWith('_command')) continue;
        const [words = []] = commandsOf(value);
        if (ours(words)) expect(() => parse(words), place).not.toThrow();
      }
    }
  });

  test('JSON is JSON', () => {
    for (const { place, language, text } of blocksOf(file)) {
      if (language === 'json') expect(() => JSON.parse(text), place).not.toThrow();
    }
  });

  test('YAML is a configuration of serve', async () => {
    for (const { place, language, text } of blocksOf(file)) {
      if (language !== 'yaml') continue;
      const { faults } = await parseConfig(Buffer.from(text), { LEDGER_HOST: 'db' });
      expect(faults, place).toEqual([]);
    }
  });

  test('names no machine', () => {
    expect(readText(file)).not.toMatch(/\/(home|root|work)\//);
  });
});

const rows = (text: string) => [...text.matchAll(/^\| (`WK_.*?) \|/gm)].map((m) => m[1] as string);
const codes = (text: string) => [...text.matchAll(/\bWK_[A-Z_]+/g)].map((m) => m[0]);

/** What a section of a document holds, up to the next heading of its level. */
const section = (file: string, heading: string) =>
  readText(file).split(`\n${heading}\n`)[1]?.split(/^## /m)[0] as string;

describe('docs/exit-codes.md', () => {
  const file = 'docs/exit-codes.md';

  test('has every error code, and no other', async () => {
    const declared = "code(: ErrorCode)? = 'WK_";
    const { stdout } = await exec('grep', ['-rhE', declared, 'src'], { cwd: packageRoot });
    const documented = rows(section(file, '## Error codes')).flatMap(codes);
    expect(documented.sort()).toEqual([...new Set(codes(stdout))].sort());
  });

  test('has every warning', async () => {
    const { stdout } = await exec('grep', ['-rhE', "'WK_", 'src/receive', 'src/server'], {
      cwd: packageRoot,
    });
    // A list of codes to look for is none of warnings.
    const lines = stdout.split('\n').filter((line) => !line.includes('satisfies ErrorCode[]'));
    const emitted = codes(lines.join('\n'));
    const documented = codes(section(file, '## Warnings'));
    for (const code of emitted) {
      if (!stdout.includes(`code === '${code}'`)) expect(documented).toContain(code);
    }
  });

  test('has every finding of verify', () => {
    const words = (source: string, block: RegExp, word: RegExp) =>
      [...(block.exec(readText(source))?.[0] ?? '').matchAll(word)].map((m) => m[1]);
    const declared = [
      ...words('src/archive/findings.ts', /export type FindingCode =[^;]*;/, /\| '([a-z-]+)'/g),
      ...words('src/wal/fault.ts', /const SCOPES = \{[^}]*\}/, /^ {2}'?([a-z-]+)'?:/gm),
    ];
    const text = section(file, '## Findings of walkeep verify');
    const documented = [
      ...text.matchAll(/`([a-z]+(-[a-z]+)+|zeros|overwrite|gap|unreadable|duplicate)`/g),
    ];
    const names = documented.map((m) => m[1] as string).filter((name) => name !== 'accept-gap');
    expect([...new Set(names)].sort()).toEqual(declared.sort());
  });

  test('has every command', () => {
    const text = section(file, '## Exit codes');
    for (const name of COMMANDS.keys()) {
      expect(text).toMatch(new RegExp(`^###.* walkeep ${name}\\b`, 'm'));
    }
  });
});

test('the warnings at start are those that exist', async () => {
  const { stdout } = await exec(
    'grep',
    ['-ohE', 'WK_SYNC_[A-Z_]+', 'src/server/sync-standby.ts', 'src/server/sync-peers.ts'],
    {
      cwd: packageRoot,
    },
  );
  const documented = codes(section('docs/sync-standby.md', '## Warnings at start'));
  expect([...new Set(documented)].sort()).toEqual([...new Set(stdout.trim().split('\n'))].sort());
});

test('the tests that docs/stores.md names are there', () => {
  const named = inlineCode('docs/stores.md').filter((code) => code.startsWith('test/'));
  expect(named.length).toBeGreaterThan(10);
  for (const path of named) expect(existsSync(join(packageRoot, path)), path).toBe(true);
});

test('TypeScript in the documents compiles', { timeout: 60_000 }, async () => {
  const blocks = blocksIn('ts');
  expect(blocks.length).toBeGreaterThan(2);
  const dir = scratchDir('ts');
  mkdirSync(join(dir, 'src'));
  for (const [i, { place, text }] of blocks.entries()) {
    writeFileSync(join(dir, 'src', `${place.replaceAll(/\W/g, '-')}-${i}.mts`), text);
  }
  const config = {
    extends: join(packageRoot, 'tsconfig.json'),
    compilerOptions: {
      typeRoots: [join(packageRoot, 'node_modules', '@types')],
      paths: { walkeep: [join(packageRoot, 'src', 'index.ts')] },
    },
    include: ['src'],
  };
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify(config));
  const tsc = join(packageRoot, 'node_modules', 'typescript', 'bin', 'tsc');
  const { stdout } = await exec(process.execPath, [tsc, '-p', dir]).catch((error) => error);
  expect(stdout).toBe('');
});
