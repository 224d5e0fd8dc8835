import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { ProgramName } from '../../src/cli/option-spec.js';

/** The built program, as PostgreSQL's program_help_ok and its kin call it. */
function spawn(program: ProgramName, ...argv: string[]) {
  const script = fileURLToPath(new URL(`../../bin/${program}`, import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...argv], {
    encoding: 'utf8',
    env: {},
  });
  return { status, stdout, stderr };
}

describe.each<ProgramName>(['walkeep', 'pg_receivewal'])('bin/%s', (program) => {
  it('--help', () => {
    const { status, stdout, stderr } = spawn(program, '--help');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('Usage:');
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('--version', () => {
    const { status, stdout, stderr } = spawn(program, '--version');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/walkeep \d/);
  });

  it('--not-a-valid-option', () => {
    const { status, stdout, stderr } = spawn(program, '--not-a-valid-option');
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toBe(
      `${program}: unrecognized option '--not-a-valid-option'\n` +
        `${program}: hint: Try "${program} --help" for more information.\n`,
    );
  });
});
