import { StoreAccessError, StoreUncertainError } from '../../errors.js';
import { oneLine } from '../../text.js';
import type { SshPlace } from '../place.js';

/** How a started program ended. */
interface End {
  /** It could not be started. */
  error?: Error;
  code?: number | null;
  /** The last of what it printed on stderr. */
  printed: string;
}

/** What ssh ends with when it is ssh that failed, and not what it ran there. */
const SSH_FAILED = 255;
const NOT_EXECUTABLE = 126;
const NOT_FOUND = 127;
/** Of ssh's messages those that trying again does not change. */
const REFUSED =
  /permission denied|host key verification failed|authentication fail|too many authentication|no matching (host key|key exchange|cipher|mac)|could not resolve hostname (?!.*(temporary|try again))|bad (owner|configuration)|no such identity|unprotected private key|administratively prohibited/i;
const MOST_DETAIL = 500;

/** What it means that the connection over ssh ended. It never says what a store holds. */
export function whyEnded(place: SshPlace, program: string, { error, code, printed }: End): Error {
  const details = detailOf(printed);
  if (error) {
    return new StoreAccessError(`could not start "${program}": ${error.message}`, {
      cause: error,
      hint: 'Install an ssh client, or name one in WALKEEP_RSH.',
    });
  }
  if (code === SSH_FAILED) {
    const message = `ssh to ${place.host} failed`;
    if (!REFUSED.test(printed)) return new StoreUncertainError(message, details);
    return new StoreAccessError(message, {
      ...details,
      hint: `"ssh ${place.host}" must work for this user without a question: keys, known hosts.`,
    });
  }
  if (code === NOT_FOUND || code === NOT_EXECUTABLE) {
    return new StoreAccessError(`walkeep cannot be run on ${place.host}`, {
      ...details,
      hint: 'Install it there, or say how it is run in WALKEEP_REMOTE_COMMAND.',
    });
  }
  if (code === 0 || code === null || code === undefined) {
    return new StoreUncertainError(`the connection to ${place.text} ended`, details);
  }
  return new StoreAccessError(
    `${place.text} cannot be used: walkeep there ended with ${code}`,
    details,
  );
}

/** The last line that says something. */
function detailOf(printed: string): { detail?: string } {
  const lines = printed
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !/^warning: permanently added/i.test(line));
  const last = lines.at(-1);
  return last === undefined ? {} : { detail: oneLine(last).slice(0, MOST_DETAIL) };
}
