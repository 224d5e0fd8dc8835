import { CorruptWalError } from '../errors.js';
import { parseTimelineHistory, type TimelineHistory } from './timeline.js';

/** What is stored of a timeline's history. Nothing may be concluded from a damaged one. */
export type StoredHistory =
  | { state: 'absent' }
  | { state: 'good'; history: TimelineHistory; content: Buffer }
  | { state: 'damaged'; problem: CorruptWalError; content: Buffer };

/** A last line that ends within its LSN, or right behind it, without the server's line end. */
const CUT_SHORT = /(^|\n)[^\n#]*\/[0-9A-Fa-f]*$/;

/**
 * The one rule for the content of a history file, wherever it is read: it must parse, in PostgreSQL's
 * order of parents and switch points, and name a parent, as that of every timeline above 1 does. One
 * cut to nothing would pass for the history of a timeline without ancestors, one cut within an LSN
 * for a fork at another place.
 * @param path where it is from, for the message
 */
export function judgeHistory(
  path: string,
  timeline: number,
  content: Buffer,
): Exclude<StoredHistory, { state: 'absent' }> {
  const text = content.toString('latin1');
  let why: string;
  let cause: unknown;
  try {
    const history = parseTimelineHistory(timeline, text);
    const cut = CUT_SHORT.test(text);
    if (!cut && (history.ancestors.length > 0 || timeline === 1)) {
      return { state: 'good', history, content };
    }
    why = cut ? 'its last line is cut short' : 'it names no parent timeline';
  } catch (e) {
    cause = e;
    why = (e as Error).message;
  }
  const problem = new CorruptWalError(`"${path}" is no history of timeline ${timeline}`, {
    path,
    hint: 'Put a good copy in its place; any server of that timeline has it.',
    detail: why,
    ...(cause === undefined ? {} : { cause }),
  });
  return { state: 'damaged', problem, content };
}
