import { word } from '../../restore/settings.js';
import type { WorkConfig } from '../config/config.js';
import type { RestorePlanned, RestoreQuery } from './messages.js';
import { DIRECTORY } from './query.js';

/** Columns of a line that is copied. */
const WIDTH = 78;

/** The command that restores as planned, in lines for a shell. */
export function commandText(plan: RestorePlanned, query: RestoreQuery, work: WorkConfig): string {
  const { target, timeline } = plan;
  const places = placesOf(query, work);
  const words = [
    ...optionsOf(target),
    `--timeline=${timeline}`,
    // Of the end of a backup it stands there already.
    ...(query.backup === undefined || target.includes('--backup')
      ? []
      : [`--backup=${word(query.backup)}`]),
    ...(query.action === undefined || isEnd(target) ? [] : [`--action=${query.action}`]),
    ...identityFiles(query, work).map((file) => `--identity=${word(file)}`),
    ...places.map(({ place }) => word(place)),
    word(query.dataDir),
  ];
  return folded(['walkeep', 'restore', ...words]);
}

/** At the end of the archive there is no choice of what the server does. */
function isEnd(target: readonly string[]): boolean {
  return target[1] === 'latest';
}

/** `--to`, `X`, `--before` as `--to='X'`, `--before`. */
function optionsOf(words: readonly string[]): string[] {
  const options: string[] = [];
  for (const [i, one] of words.entries()) {
    const value = words[i + 1];
    if (!one.startsWith('--')) continue;
    options.push(value === undefined || value.startsWith('--') ? one : `${one}=${quoted(value)}`);
  }
  return options;
}

function quoted(value: string): string {
  return word(value) === value ? `'${value}'` : word(value);
}

/** The places that are asked for, the directory first. */
export function placesOf({ from }: Pick<RestoreQuery, 'from'>, { server, stores }: WorkConfig) {
  const all = [{ name: DIRECTORY, place: server.directory }, ...stores];
  return all.filter(({ name }) => from.includes(name));
}

/** Of the stores among them. */
export function identityFiles(
  { from }: Pick<RestoreQuery, 'from'>,
  { stores }: WorkConfig,
): string[] {
  const files = stores.flatMap(({ name, identityFile }) =>
    from.includes(name) && identityFile !== undefined ? [identityFile] : [],
  );
  return [...new Set(files)];
}

/** Words in lines that a shell takes for one. */
function folded(words: readonly string[]): string {
  const lines: string[] = [];
  let line = '';
  for (const one of words) {
    if (line !== '' && line.length + 1 + one.length > WIDTH - 2) {
      lines.push(line);
      line = `  ${one}`;
    } else line = line === '' ? one : `${line} ${one}`;
  }
  return [...lines, line].join(' \\\n');
}
