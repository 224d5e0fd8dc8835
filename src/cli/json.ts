import { formatLsn } from '../lsn.js';
import { tameJson } from '../text.js';

/** Names of fields that hold an LSN; other bigints are printed as decimal text. */
const LSN_FIELDS: readonly string[] = ['lsn', 'from', 'to', 'end', 'start', 'validEnd', 'branch'];

/** One line of JSON, without its newline: LSNs as `X/X`, times as ISO 8601. */
export function jsonLine(value: unknown): string {
  const json = JSON.stringify(value, (key, field) => {
    if (typeof field !== 'bigint') return field;
    return LSN_FIELDS.includes(key) ? formatLsn(field) : field.toString();
  });
  return tameJson(json);
}
