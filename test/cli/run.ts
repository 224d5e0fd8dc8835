import { Writable } from 'node:stream';
import { runCli } from '../../src/cli/main.js';
import type { ProgramName } from '../../src/cli/option-spec.js';
import { Output } from '../../src/cli/output.js';

class Sink extends Writable {
  text = '';
  isTTY = false;
  columns = 80;
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

/** An Output whose two streams are kept as text. */
export function captureOutput(
  program: ProgramName = 'pg_receivewal',
  env: NodeJS.ProcessEnv = {},
  isTTY = false,
) {
  const stdout = new Sink();
  const stderr = new Sink();
  stderr.isTTY = isTTY;
  return { stdout, stderr, output: new Output(program, { stdout, stderr, env }) };
}

/** Runs a command line in this process. */
export async function run(program: ProgramName, ...argv: string[]) {
  const stdout = new Sink();
  const stderr = new Sink();
  const code = await runCli(argv, program, { stdout, stderr, env: {} });
  return { code, stdout: stdout.text, stderr: stderr.text };
}
