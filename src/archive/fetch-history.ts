import fs from 'node:fs';
import { CorruptWalError } from '../errors.js';
import { readRegularSync } from '../storage/regular-file.js';
import { parseTimelineHistory, type TimelineHistory } from '../wal/timeline.js';

/**
 * The text of a file, undefined if there is none. A link that leads nowhere is not "none": what it
 * stood for may be on a disk that is not mounted.
 * @throws the errno error
 */
export function readIfThere(path: string): string | undefined {
  try {
    return readRegularSync(path).toString('latin1');
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw e;
    if (fs.lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) {
      throw Object.assign(e as Error, { code: 'ENXIO' });
    }
    return undefined;
  }
}

/** The history in a file's text. @throws CorruptWalError if it is none */
export function historyIn(path: string, timeline: number, text: string): TimelineHistory {
  let history: TimelineHistory | undefined;
  let cause: unknown;
  try {
    history = parseTimelineHistory(timeline, text);
  } catch (e) {
    cause = e;
  }
  // A timeline above 1 came from one: a file cut to nothing must not pass for its history.
  if (history && (history.ancestors.length > 0 || timeline === 1)) return history;
  throw new CorruptWalError(`"${path}" is no history of timeline ${timeline}`, {
    path,
    hint: 'Put a good copy in its place; any server of that timeline has it.',
    ...(cause === undefined ? {} : { cause, detail: (cause as Error).message }),
  });
}
