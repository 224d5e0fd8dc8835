import type { LogEntry } from '../../serve/status.js';
import { withoutSecrets } from '../../text.js';
import { jsonLine } from '../json.js';
import type { Output } from '../output.js';

/** Where a log goes: text on a terminal, else a JSON object a line; both on stderr. */
export function logTo(output: Output): (entry: LogEntry) => void {
  return output.live
    ? (entry) => printText(entry, output)
    : (entry) => output.logLine(lineOf(entry));
}

function lineOf({ level, event, server, job, code, message, hint, detail }: LogEntry): string {
  const all = { server, job, code, message, hint, detail };
  const texts = Object.entries(all).map(([name, text]) => [name, text && withoutSecrets(text)]);
  const time = new Date().toISOString();
  return jsonLine({ time, level, event, ...Object.fromEntries(texts) });
}

function printText({ level, server, job, message, hint, detail }: LogEntry, output: Output): void {
  const whose = [server, job].filter((part) => part !== undefined).join(' ');
  const text = whose === '' ? message : `${whose}: ${message}`;
  if (level === 'info') output.info(text);
  else output[level](text);
  if (detail !== undefined) output.info(detail);
  if (hint !== undefined) output.hint(hint);
}
