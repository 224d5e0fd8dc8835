import { dirname } from 'node:path';
import {
  type AuthenticationReference,
  authenticationReferences,
} from '../../server/included-files.js';
import type { AdoptOptions } from './adopted.js';

/**
 * The text of a file like pg_hba.conf or pg_ident.conf whose includes, and whose `@file` in the place
 * of names, lead to where those files go. A line that leads to what nobody has is taken out: a server
 * does not start with it.
 */
export function adoptAuthentication(text: string, options: AdoptOptions): string {
  // With those that a backslash joins to one.
  const lines = text.match(/(?:[^\\\n]|\\\r?\n|\\)*(?:\n|$)/g) ?? [];
  return lines.map((line) => adoptLine(line, options)).join('');
}

function adoptLine(line: string, options: AdoptOptions): string {
  const { file } = options;
  let changed = line;
  // From the last to the first, so that those before stay where they are.
  for (const was of authenticationReferences(file.from, line).reverse()) {
    const is = authenticationReferences(file.to, line).find(({ start }) => start === was.start);
    const to = leadsTo(was, is?.path ?? was.path, options);
    if (to === 'as before') continue;
    if (to === 'nowhere') {
      options.note?.(
        `"${file.to}" names "${was.path}", which the backup does not have: the line is taken out`,
      );
      return `#${changed.replace(/\n(?=.)/g, '\n#').replace(/(\r?\n)?$/, '  # walkeep restore$1')}`;
    }
    if (was.directory === true) {
      const end = changed.endsWith('\n') ? '\n' : '';
      return `#${changed.trimEnd()}  # walkeep restore\n${to.map((one) => `include "${one}"`).join('\n')}${end}`;
    }
    const name = `${was.list ? '@' : ''}"${to[0]}"`;
    changed = changed.slice(0, was.start) + name + changed.slice(was.end);
  }
  return changed;
}

/** Where files go that somebody had elsewhere; `as before`: it leads there, or it may be missing. */
function leadsTo(
  was: AuthenticationReference,
  is: string,
  { adopted, directories, exists }: AdoptOptions,
): string[] | 'as before' | 'nowhere' {
  const stored = adopted.filter(({ object }) => object !== undefined);
  const places = stored
    .filter(({ from }) => (was.directory ? dirname(from) : from) === was.path)
    .map(({ to }) => to);
  const leads = was.directory
    ? directories.some(({ from, to }) => from === was.path && to === is)
    : places.includes(is);
  // No name of PostgreSQL's can have a quote in it.
  if (leads || places.some((to) => to.includes('"'))) return 'as before';
  if (places.length > 0) return places;
  return was.optional || exists(is) ? 'as before' : 'nowhere';
}
