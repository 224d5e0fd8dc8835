import { posix } from 'node:path';

/** A file or directory that a configuration file names. */
export interface Included {
  /** Absolute. */
  path: string;
  /** Its absence is no error. */
  optional: boolean;
  directory?: boolean;
}

/** `include 'file'`, `include_dir = dir` (guc-file.l): the key in any case, the value quoted or not. */
const DIRECTIVE =
  /^\s*(include|include_if_exists|include_dir)(?:\s*=\s*|\s+|(?='))(?:'((?:[^'\\]|\\.|'')*)'|([^\s'#]+))\s*(?:#.*)?$/i;

/** What a file like postgresql.conf includes. */
export function includedBySettings(path: string, content: string): Included[] {
  return content.split(/\r?\n/).flatMap((line) => {
    const [, key, quoted, bare] = DIRECTIVE.exec(line) ?? [];
    const name = quoted?.replace(/''|\\(.)/gs, (all, char) => char ?? all[0]) ?? bare;
    return key === undefined || !name ? [] : [included(path, key.toLowerCase(), name)];
  });
}

/** A token of pg_hba.conf (hba.c, next_token): quoted, in part quoted, or not; or a comment. */
const TOKEN = /#.*|(?:"[^"]*"|[^\s,"#])+/g;

/** One of a file like pg_hba.conf, and where it stands in its line. */
export interface AuthenticationReference extends Included {
  /** Of the name, with the `@` before it. */
  start: number;
  end: number;
  /** `@file` in the place of names. */
  list: boolean;
}

/**
 * What a file like pg_hba.conf or pg_ident.conf includes: with the directives of 16 and newer, and
 * `@file` in the place of names. A quoted one is a name itself.
 */
export function includedByAuthentication(path: string, content: string): Included[] {
  return content
    .replace(/\\\r?\n/g, ' ')
    .split(/\r?\n/)
    .flatMap((line) =>
      authenticationReferences(path, line).map(({ start, end, list, ...found }) => found),
    );
}

/** @param line with those that follow a backslash at its end */
export function authenticationReferences(path: string, line: string): AuthenticationReference[] {
  const joined = line.replace(/\\\r?\n/g, (all) => ' '.repeat(all.length));
  const tokens = [...joined.matchAll(TOKEN)]
    .map(({ 0: text, index }) => ({ text, start: index, end: index + text.length }))
    .filter(({ text }) => text[0] !== '#');
  const [key, name] = tokens;
  if (key && name && /^include(_if_exists|_dir)?$/.test(key.text)) {
    const { text, ...at } = name;
    return [{ ...included(path, key.text, bare(text)), ...at, list: false }];
  }
  return tokens
    .filter(({ text }) => /^@./.test(text))
    .map(({ text, ...at }) => ({
      ...included(path, 'include', bare(text.slice(1))),
      ...{ ...at, list: true },
    }));
}

function bare(token: string): string {
  return token.replaceAll('"', '');
}

/** Relative to the file that it stands in (conffiles.c, AbsoluteConfigLocation). */
function included(from: string, key: string, name: string): Included {
  return {
    path: posix.resolve(posix.dirname(from), name),
    optional: key === 'include_if_exists',
    ...(key === 'include_dir' ? { directory: true } : {}),
  };
}
