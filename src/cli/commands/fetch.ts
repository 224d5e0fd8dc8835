import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { UsageError } from '../../errors.js';
import type { FetchOptions, FetchResult } from '../../fetch/fetch.js';
import { formatLsn } from '../../lsn.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import { parseIntOption } from '../numbers.js';
import type { OptionSpec } from '../option-spec.js';
import type { Output } from '../output.js';
import { absolutePlace, KEY_OPTIONS, keysOf } from '../place-options.js';

const GROUP = 'Options:';

/** Longest `--wait` in seconds; as MOST_WAIT of the library, which is not loaded for it. */
const MOST_WAIT = 300;
/** Most segments to read ahead; as MOST_AHEAD. */
const MOST_AHEAD = 64;

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'no-verify',
    group: GROUP,
    help: 'serve files unread: no check of headers, records, cluster or damage',
  },
  {
    long: 'allow-torn',
    group: GROUP,
    help: 'serve a partial file although WAL behind its valid end is lost',
  },
  {
    long: 'standby',
    group: GROUP,
    help:
      'answer "not there" where the archive cannot be reached for a moment (default where ' +
      'standby.signal is in the working directory)',
  },
  {
    long: 'prefetch',
    argument: 'N',
    group: GROUP,
    help: `have up to N next segments read ahead, at most ${MOST_AHEAD} (default: 0)`,
  },
  {
    long: 'spool',
    argument: 'DIR',
    group: GROUP,
    help: 'keep what is read ahead in DIR (default: .walkeep-spool beside TARGET)',
  },
  {
    long: 'wait',
    argument: 'SECONDS',
    group: GROUP,
    help:
      `wait so long for a segment that is not there, at most ${MOST_WAIT}; also delays the end of ` +
      'recovery and promotion',
  },
  ...KEY_OPTIONS,
  VERSION_OPTION,
  HELP_OPTION,
];

/**
 * Exit codes. PostgreSQL goes on without the file after 1 to 125, and stops with FATAL above
 * (access/transam/xlogarchive.c, wait_result_is_any_signal); 126 to 192 look like what a shell says
 * of commands it cannot run (PostgreSQL logs "command not executable" for 126) or that died by a
 * signal, so ours lie higher.
 */
export const EXIT = {
  /** Verified and in place. */
  found: 0,
  /** The archive was asked and does not have it. */
  absent: 1,
  /** walkeep could not run or failed in a way not foreseen. The entry file's code, too. */
  failed: 127,
  /** Wrong arguments. */
  usage: 200,
  /** What the archive has is damaged. */
  damaged: 201,
  /** The archive, or the file, is of another cluster. */
  cluster: 202,
  /** WAL that should be there is missing. */
  hole: 203,
  /** It could not be written where PostgreSQL wants it. */
  target: 204,
  /** The archive could not be asked: unreachable, not mounted, not readable. */
  unreadable: 205,
} as const;

const BY_CODE: Readonly<Record<string, number>> = {
  WK_USAGE: EXIT.usage,
  WK_ARCHIVE_ACCESS: EXIT.unreadable,
  WK_STORAGE: EXIT.unreadable,
  WK_NOT_SUPPORTED: EXIT.unreadable,
  WK_STORE_UNCERTAIN: EXIT.unreadable,
  WK_STORE_ACCESS: EXIT.unreadable,
  WK_STORE_UNSUPPORTED: EXIT.unreadable,
  WK_CORRUPT_OBJECT: EXIT.damaged,
  WK_ENCRYPTED: EXIT.unreadable,
  WK_CORRUPT_WAL: EXIT.damaged,
  WK_PARSE: EXIT.damaged,
  WK_SYSTEM_IDENTIFIER: EXIT.cluster,
  WK_GAP: EXIT.hole,
  WK_TARGET: EXIT.target,
  WK_DISK_FULL: EXIT.target,
  WK_FSYNC: EXIT.target,
};

/** `walkeep fetch`. */
export const command: Command = {
  takesPlace: true,
  usage: 'fetch [OPTION]... PLACE... NAME TARGET',
  description:
    "Brings a file from an archive, for restore_command = 'walkeep fetch DIR %f %p'. A PLACE is a " +
    'directory or the URL of a store; of several the first that has the file, verified, gives it. ' +
    'Exit code 0: verified and in place; 1: the archive does not have it; above 125: could not ' +
    'tell, and PostgreSQL stops: 127 walkeep failed, 200 wrong arguments, 201 damaged, 202 ' +
    'another cluster, 203 WAL is missing, 204 TARGET not writable, 205 archive not readable.',
  light: true,
  options: () => OPTIONS,
  async run(values, operands, { output, tryHelp }) {
    try {
      const places = operands.length > 3 ? operands.slice(0, -2) : operands.slice(0, 1);
      const [name, target] = operands.slice(places.length);
      const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });
      if (!places[0]) throw misuse('no directory specified');
      if (!name) throw misuse('no file name specified');
      if (!target) throw misuse('no target specified');
      const count = (option: string, max: number): number => {
        const text = values[option];
        return typeof text === 'string' ? parseIntOption(text, `--${option}`, 0, max) : 0;
      };
      const wait = count('wait', MOST_WAIT);
      const prefetch = count('prefetch', MOST_AHEAD);
      const standby = values.standby === true || existsSync('standby.signal');
      const options: FetchOptions = {
        places: places.map(absolutePlace),
        name,
        target: resolve(target),
        verify: values['no-verify'] !== true,
        allowTorn: values['allow-torn'] === true,
        dataDir: process.cwd(),
        standby,
        keys: keysOf(values),
      };
      const spool =
        typeof values.spool === 'string'
          ? resolve(values.spool)
          : join(dirname(options.target), '.walkeep-spool');
      // A cluster that is named is another one than the server's, if there is a server.
      const asked = prefetch > 0 && options.keys?.systemId === undefined;
      if (asked && options.verify && mayReadAhead(name, options.target)) {
        return await fetchAhead(options, { standby, wait }, prefetch, spool, output);
      }
      return tell(await fetchNow(options, { standby, wait }), output);
    } catch (error) {
      output.report(error);
      return exitCodeOf(error);
    }
  },
};

/** The exit code of an error; above 125 whatever it is. */
export function exitCodeOf(error: unknown): number {
  return BY_CODE[(error as { code?: string }).code ?? ''] ?? EXIT.failed;
}

type Retries = { standby: boolean; wait: number };
type Answer = FetchResult & { unknown?: Error };

/**
 * True if a server in recovery asks for a segment: it has it put at `pg_wal/RECOVERYXLOG`
 * (access/transam/xlogarchive.c). pg_rewind wants it under the segment's own name, goes backwards,
 * and then walks through a data directory that nobody else may change meanwhile.
 */
export function mayReadAhead(name: string, target: string): boolean {
  return /^[0-9A-F]{24}$/.test(name) && basename(target) === 'RECOVERYXLOG';
}

async function fetchNow(options: FetchOptions, retries: Retries): Promise<Answer> {
  const { fetchFile, fetchRetrying } = await import('../../fetch/fetch.js');
  if (!retries.standby && retries.wait === 0) return fetchFile(options);
  return fetchRetrying(fetchFile, options, retries);
}

async function fetchAhead(
  options: FetchOptions,
  retries: Retries,
  count: number,
  spool: string,
  output: Output,
): Promise<number> {
  const { places, name, target, dataDir, keys } = options;
  const [{ isTrusted, orderAhead, takePrefetched }, { readServerControl }] = await Promise.all([
    import('../../fetch/ahead.js'),
    import('../../server/control-file.js'),
  ]);
  const systemId = dataDir === undefined ? undefined : readServerControl(dataDir)?.systemId;
  const ready = await takePrefetched(spool, places, name, systemId, target).catch(() => false);
  if (isTrusted(spool) === false) {
    output.warning(
      `not reading ahead: "${spool}" is no directory of this user's that nobody else may write to`,
    );
  }
  const code = ready ? EXIT.found : tell(await fetchNow(options, retries), output);
  if (code === EXIT.found) {
    await orderAhead(spool, { places, keys, name, count, dataDir, near: dirname(target) });
  }
  return code;
}

function tell(answer: Answer, output: Output): number {
  if (answer.found) {
    const { path, validEnd, damage, unfollowed, passedOver = [] } = answer;
    for (const { message } of passedOver)
      output.warning(`${message}; another archive gave "${path}"`);
    if (unfollowed !== undefined) {
      const hint = `If a clone pushed it, move its files out of the archive, or recover with recovery_target_timeline set to a number.`;
      output.warning(`"${path}": ${unfollowed}; recovery to the latest timeline follows it`, hint);
    }
    if (validEnd === undefined) return EXIT.found;
    const message = `"${path}" is a partial segment, good up to ${formatLsn(validEnd)}`;
    if (damage === undefined) output.info(message);
    else output.warning(`${message}; ${damage}`);
    return EXIT.found;
  }
  if (answer.unknown) {
    output.report(answer.unknown);
    output.info('going on without the archive, as a standby does');
  }
  return EXIT.absent;
}
