import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot, scratchDir } from '../support/scratch.js';

const SCRIPT = join(packageRoot, '.ci', 'audit.mjs');
const GOOD = { version: '1.0.0', integrity: 'sha512-x', license: 'MIT' };

const report = (counts: Record<string, number>) =>
  JSON.stringify({
    metadata: {
      vulnerabilities: { info: 0, low: 0, moderate: 0, high: 0, critical: 0, total: 0, ...counts },
    },
  });

/** Runs the audit of these lock entries, with an `npm` that does as the shell lines say. */
function audit(entries: Record<string, object>, npm = `echo '${report({})}'`) {
  const directory = scratchDir('audit');
  const bin = join(directory, 'bin');
  mkdirSync(bin);
  const packages = { '': { name: 'x' }, ...entries };
  writeFileSync(join(directory, 'package-lock.json'), JSON.stringify({ packages }));
  writeFileSync(join(bin, 'npm'), `#!/bin/sh\n${npm}\n`, { mode: 0o755 });
  const { status, stdout } = spawnSync(process.execPath, [SCRIPT, directory], {
    encoding: 'utf8',
    env: { PATH: `${bin}${delimiter}${process.env.PATH}`, AUDIT_TIMEOUT: '1500' },
  });
  return { status, stdout };
}

describe('the dependency audit', () => {
  it.each(['.', '.ci/nodes'])('has nothing to say against the lock file of %s', (path) => {
    const directory = scratchDir('bin');
    writeFileSync(join(directory, 'npm'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const { status, stdout } = spawnSync(process.execPath, [SCRIPT, join(packageRoot, path)], {
      encoding: 'utf8',
      env: { PATH: `${directory}${delimiter}${process.env.PATH}` },
    });
    expect([status, stdout]).toEqual([0, expect.stringContaining('are in order')]);
  });

  it('passes good packages', () => {
    const { status, stdout } = audit({
      a: GOOD,
      b: { ...GOOD, license: '(GPL-3.0 OR MIT)', resolved: 'https://registry.example/b.tgz' },
      // Tools are not given to users.
      c: { ...GOOD, dev: true, license: 'MPL-2.0', hasInstallScript: true },
    });
    expect(stdout).toContain('vulnerabilities in what users get: none');
    expect(status).toBe(0);
  });

  it.each([
    ['no sha512 checksum', { ...GOOD, integrity: undefined }],
    ['no sha512 checksum', { ...GOOD, integrity: 'sha1-x', dev: true }],
    ['does not come over https', { ...GOOD, resolved: 'http://registry.example/a.tgz' }],
    ['does not come over https', { ...GOOD, resolved: 'git+ssh://example/a.git', dev: true }],
    ['licence GPL-3.0', { ...GOOD, license: 'GPL-3.0' }],
    ['licence not stated', { ...GOOD, license: undefined }],
    ['runs a script when it is installed', { ...GOOD, hasInstallScript: true }],
    ['a link to a directory', { ...GOOD, link: true }],
  ])('finds %s', (what, entry) => {
    const { status, stdout } = audit({ a: entry, b: GOOD });
    expect([status, stdout]).toEqual([1, expect.stringContaining(`FOUND a: ${what}`)]);
  });

  it.each([
    [1, { high: 1 }],
    [1, { critical: 2 }],
    [0, { moderate: 3, low: 1 }],
  ])('exits %i for %j in what users get', (status, counts) => {
    expect(audit({ a: GOOD }, `echo '${report(counts)}'; exit 1`).status).toBe(status);
  });

  it('reports those of tools', () => {
    const npm = `case "$*" in *omit=dev*) echo '${report({})}';; *) echo '${report({ high: 4 })}'; exit 1;; esac`;
    const { status, stdout } = audit({ a: GOOD }, npm);
    expect(stdout).toContain('with development tools: 4 high');
    expect(status).toBe(0);
  });

  it.each([
    ['hangs', 'sleep 60', 'did not answer'],
    ['is offline', `echo '{"error":{"code":"ENOTFOUND"}}'; exit 1`, 'gives no report'],
    ['talks nonsense', 'echo "<html>"', 'gives no report'],
    ['reports half', `echo '{"metadata":{"vulnerabilities":{"high":0}}}'`, 'gives no report'],
  ])('goes on when the registry %s', (_, npm, text) => {
    const { status, stdout } = audit({ a: GOOD }, npm);
    expect([status, stdout]).toEqual([0, expect.stringContaining(text)]);
    expect(audit({ a: { ...GOOD, license: 'GPL-3.0' } }, npm).status).toBe(1);
  });
});
