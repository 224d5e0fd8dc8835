import { connect } from 'node:net';
import { ArchiveAccessError, ConfigError, UsageError, type WalkeepError } from '../../errors.js';
import { reason } from '../../files/durable.js';
import type { ControlAnswer, ControlRequest, ControlResults } from './protocol.js';

/** Milliseconds without an answer; to end a receiver may take a while. */
const PATIENCE = 60_000;

/**
 * Asks the program that listens on a control socket.
 * @throws ServeAccessError if it gives no answer, or what it says is wrong
 */
export async function askControl<R extends ControlRequest>(
  path: string,
  request: R,
): Promise<ControlResults[R['command']]> {
  const answer = await exchange(path, JSON.stringify(request));
  if (answer.ok) return answer.result as ControlResults[R['command']];
  const { message, hint, faults, path: file } = answer.error;
  if (faults && file !== undefined) throw new ConfigError(message, file, faults);
  throw new UsageError(message, hint === undefined ? {} : { hint });
}

function exchange(path: string, request: string): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path);
    const fail = (why: string): void => {
      socket.destroy();
      reject(noAnswer(path, why));
    };
    socket.setEncoding('utf8');
    socket.setTimeout(PATIENCE, () => fail(`nothing came within ${PATIENCE / 1000} s`));
    socket.once('connect', () => socket.write(`${request}\n`));
    socket.once('error', (e) => fail(reason(e)));
    socket.on('data', (piece: string) => {
      text += piece;
    });
    socket.once('end', () => {
      try {
        resolve(JSON.parse(text));
      } catch {
        fail('the answer was cut off');
      }
    });
  });
}

function noAnswer(path: string, why: string): WalkeepError {
  return new ArchiveAccessError(`no answer from "walkeep serve" on "${path}": ${why}`, {
    path,
    hint: 'Does it run, and as the same user?',
  });
}
