import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { fromProcess } from '../../../../src/store/s3/credentials/process.js';
import { scratchDir } from '../../../support/scratch.js';
import { waitFor } from '../../../support/wait.js';
import { SECRET } from './endpoint.js';
import { failureOf, find } from './search.js';

const printed = (more: object = {}) =>
  JSON.stringify({ Version: 1, AccessKeyId: 'A', SecretAccessKey: SECRET, ...more });

/** A program that prints the text, and what it was called with to its own file. */
function program(text: string, then = ''): { path: string; dir: string } {
  const dir = scratchDir('my programs');
  const path = join(dir, 'give keys');
  writeFileSync(join(dir, 'out'), text);
  const script = `#!/bin/sh\nprintf '%s\\n' "$@" > '${dir}/args'\ncat '${dir}/out'\n${then}\n`;
  writeFileSync(path, script, { mode: 0o755 });
  return { path, dir };
}

const profile = (command: string) => ({ config: `[default]\ncredential_process = ${command}` });

test('a program prints them', async () => {
  const { path } = program(printed({ SessionToken: 't', Expiration: '2030-01-01T00:00:00Z' }));
  expect(await find(profile(`"${path}" --user 'a b' $HOME;x`))).toEqual({
    accessKeyId: 'A',
    secretAccessKey: SECRET,
    sessionToken: 't',
    expiration: new Date('2030-01-01T00:00:00Z'),
  });
});

test('no shell looks at its command', async () => {
  const { path, dir } = program(printed());
  await fromProcess(`"${path}" '$HOME' $(id) a\\ b "c\\"d" >x ;y`, 'default', process.env);
  const { readFile } = await import('node:fs/promises');
  expect((await readFile(join(dir, 'args'), 'utf8')).trim().split('\n')).toEqual([
    ...['$HOME', '$(id)', 'a b', 'c"d', '>x', ';y'],
  ]);
});

describe('one that does not do as it should', () => {
  test.each([
    ['prints garbage', SECRET, ''],
    ['prints another version', printed({ Version: 2 }), ''],
    ['prints no secret', printed({ SecretAccessKey: '' }), ''],
    ['prints too much', SECRET.repeat(10_000), ''],
    ['fails', printed(), `echo '${SECRET}' >&2; exit 3`],
    ['is killed', printed(), 'kill -9 $$'],
  ])('%s', async (_what, text, then) => {
    const { path } = program(text, then);
    expect(await failureOf(profile(`"${path}"`))).toMatchObject({ code: 'WK_STORE_UNCERTAIN' });
  });

  test('is not there', async () => {
    expect(await failureOf(profile('/nowhere/program'))).toMatchObject({ code: 'WK_STORE_ACCESS' });
  });

  test('has a quote too few', async () => {
    expect(await failureOf(profile('"program'))).toMatchObject({ code: 'WK_STORE_ACCESS' });
  });

  test('does not end: it is killed with what it has started', async () => {
    const { path, dir } = program(printed(), `sleep 1000 & echo $! > "$(dirname "$0")/pid"; wait`);
    const { readFile } = await import('node:fs/promises');
    const pid = () => readFile(join(dir, 'pid'), 'utf8');
    const asked = fromProcess(`"${path}"`, 'default', process.env, 3000);
    await expect(asked).rejects.toMatchObject({ code: 'WK_STORE_UNCERTAIN' });
    const child = Number(await pid());
    expect(child).toBeGreaterThan(1);
    await waitFor(() => !isRunning(child));
  });
});

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
