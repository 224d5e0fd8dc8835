import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { scratchDir } from '../support/scratch.js';
import { run } from './run.js';

describe('walkeep store', () => {
  it('refuses what it cannot understand', async () => {
    const wrong: [string[], RegExp][] = [
      [[], /no directory specified/],
      [['/srv'], /one of --init and --stdio must be given/],
      [['--init', '--stdio', '/srv'], /one of --init and --stdio/],
      [['--init', '--read-only', '/srv'], /go with --stdio/],
      [['--init', '/srv', 'more'], /too many command-line arguments/],
    ];
    for (const [args, message] of wrong) {
      const { code, stderr } = await run('walkeep', 'store', ...args);
      expect(code).toBe(1);
      expect(stderr).toMatch(message);
    }
  });

  it('makes a store of a directory, with or without something in it, and again', async () => {
    const dir = join(scratchDir(), 'new');
    const ids = new Set<string>();
    for (let i = 0; i < 2; i++) {
      expect(await run('walkeep', 'store', '--init', dir)).toMatchObject({ code: 0, stdout: '' });
      expect(readdirSync(dir)).toEqual(['.walkeep-store', 'archive.json']);
      ids.add(readFileSync(join(dir, 'archive.json'), 'utf8'));
    }
    expect(ids.size).toBe(1);
    const archive = scratchDir();
    writeFileSync(join(archive, '000000010000000000000001'), 'WAL');
    mkdirSync(join(archive, 'lost+found'));
    expect((await run('walkeep', 'store', '--init', archive)).code).toBe(0);
    expect(readdirSync(archive).sort()).toEqual([
      '.walkeep-store',
      '000000010000000000000001',
      'lost+found',
    ]);
    writeFileSync(join(archive, 'file'), '');
    const { code, stderr } = await run('walkeep', 'store', '--init', join(archive, 'file'));
    expect(code).toBe(1);
    expect(stderr).toMatch(/File exists|Not a directory/);
  });
});
