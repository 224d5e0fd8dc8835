import { type ChildProcess, spawn } from 'node:child_process';
import { StoreUncertainError, UsageError } from '../../errors.js';
import { quoteWord, splitWords } from '../../words.js';
import type { SshPlace } from '../place.js';
import { StdioStore } from '../stdio/client.js';
import { StdioSession } from '../stdio/session.js';
import type { ObjectStore } from '../store.js';
import { whyEnded } from './why-ended.js';

export interface SshStoreOptions {
  /**
   * WALKEEP_RSH: the program that leads there, with options before its host, as RSYNC_RSH and
   * BORG_RSH are; default `ssh`. WALKEEP_REMOTE_COMMAND: walkeep there, as the shell there takes it.
   */
  env?: NodeJS.ProcessEnv;
  attempts?: number;
  /** Milliseconds without a sign of the other side. Default 30 s. */
  silence?: number;
  /** Milliseconds for a call with all its tries. */
  timeout?: number;
  backOff?: number;
}

const SILENCE = 30_000;
/** Milliseconds for what was printed before the end to arrive. */
const LAST_WORDS = 1000;
/** Bytes of what is printed there that are kept, the last ones. */
const KEPT_OUTPUT = 8192;

/**
 * Opens a directory on another host: the system's ssh, with its configuration, keys and known hosts,
 * runs `walkeep store --stdio` there. Nothing is started before the first call.
 */
export function openSshStore(place: SshPlace, options: SshStoreOptions = {}): ObjectStore {
  const { env = process.env, silence = SILENCE } = options;
  const command = sshCommand(place, env);
  return new StdioStore({
    place: place.text,
    attempts: options.attempts,
    timeout: options.timeout,
    backOff: options.backOff,
    connect: async () => connect(place, command, env, silence),
  });
}

/** The words of the command that leads there. @throws UsageError */
export function sshCommand(place: SshPlace, env: NodeJS.ProcessEnv): string[] {
  const rsh = splitWords(env.WALKEEP_RSH || 'ssh');
  if (!rsh) throw new UsageError('WALKEEP_RSH has a quote or backslash without its end');
  const walkeep = env.WALKEEP_REMOTE_COMMAND || 'walkeep';
  const port = place.port === undefined ? [] : ['-p', `${place.port}`];
  const host = place.user === undefined ? place.host : `${place.user}@${place.host}`;
  // No terminal, no question: nobody is there to answer it.
  const options = ['-T', '-o', 'BatchMode=yes', ...port];
  return [...rsh, ...options, '--', host, `${walkeep} store --stdio ${quoteWord(place.path)}`];
}

function connect(
  place: SshPlace,
  [program, ...args]: string[],
  env: NodeJS.ProcessEnv,
  silence: number,
): StdioSession {
  const child: ChildProcess = spawn(program as string, args, {
    env,
    stdio: ['pipe', 'pipe', 'pipe'],
    // In a process group of its own: Ctrl-C is for us to hear, who end it in order.
    detached: true,
  });
  let printed = '';
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    printed = (printed + text).slice(-KEPT_OUTPUT);
  });
  const end = new Promise<{ error?: Error; code?: number | null }>((resolve) => {
    child.once('error', (error) => resolve({ error }));
    // With all that it printed; a master connection that stays in the background holds stderr open.
    child.once('close', (code) => resolve({ code }));
    child.once('exit', (code) => setTimeout(resolve, LAST_WORDS, { code }).unref());
  });
  const { stdin, stdout } = child;
  if (!stdin || !stdout) {
    throw new StoreUncertainError(`"${program}" could not be run: no descriptor is left`);
  }
  return new StdioSession({
    input: stdout,
    output: stdin,
    place: place.text,
    directory: place.path,
    silence,
    greeting: Math.max(silence, SILENCE),
    whyEnded: async () => whyEnded(place, program as string, { ...(await end), printed }),
    onEnd: () => void child.kill(),
  });
}
