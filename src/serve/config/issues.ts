import { nearest } from '../../options.js';
import { inWords, oneLine, withoutSecrets } from '../../text.js';
import type { ConfigDocument } from './document.js';
import type { Path } from './fault.js';
import { type Issue, knownKeys } from './model.js';

/** Tells what the model has against a document, in words that do not show the value. */
export function tellIssue(issue: Issue, document: ConfigDocument): void {
  const path = issue.path as Path;
  if (issue.code === 'unrecognized_keys') {
    for (const key of issue.keys) {
      const meant = nearest(key, knownKeys(path));
      const hint = meant === undefined ? '' : `; did you mean "${meant}"?`;
      document.fault([...path, key], `unknown key "${shown(key)}"${hint}`, 'key', path);
    }
  } else if (issue.code === 'invalid_key') {
    document.fault(path, issue.issues[0]?.message ?? issue.message, 'key');
  } else if (!document.isFaulty(path)) {
    const found = valueAt(document.value, path);
    if (found === undefined) document.fault(path, 'is missing', 'key');
    else if (found === null) document.fault(path, 'has no value', 'key');
    else document.fault(path, wordsOf(issue, found));
  }
}

function wordsOf(issue: Issue, found: unknown): string {
  if (issue.code === 'invalid_type') {
    // Of a number that has a fraction.
    if (issue.expected === 'int' && typeof found === 'number') return 'must be a whole number';
    return `must be ${kind(issue.expected)}, not ${kindOf(found)}`;
  }
  if (issue.code === 'invalid_value') {
    return `must be ${inWords(issue.values.map(String), 'or')}`;
  }
  return issue.message;
}

export const shown = (name: string): string =>
  oneLine(withoutSecrets(name.length > 40 ? `${name.slice(0, 40)}…` : name));

const KINDS: Readonly<Record<string, string>> = {
  string: 'a string',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping',
  record: 'a mapping',
  number: 'a number',
  int: 'a whole number',
};
const kind = (name: string): string => KINDS[name] ?? name;

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'boolean') return `"${value}"`;
  return kind(typeof value);
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (at, key) =>
      typeof at === 'object' && at !== null && Object.hasOwn(at, key)
        ? (at as Record<string | number, unknown>)[key]
        : undefined,
    value,
  );
}
