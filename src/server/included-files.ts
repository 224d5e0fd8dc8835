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

/**
 * What a file like pg_hba.conf or pg_ident.conf includes: with the directives of 16 and newer, and
 * `@file` in the place of names. A quoted one is a name itself.
 */
export function includedByAuthentication(path: string, content: string): Included[] {
  return content
    .replace(/\\\r?\n/g, ' ')
    .split(/\r?\n/)
    .flatMap((line) => {
      const tokens = [...line.matchAll(TOKEN)].map(([token]) => token).filter((t) => t[0] !== '#');
      const [key = '', name] = tokens;
      if (/^include(_if_exists|_dir)?$/.test(key) && name) return [included(path, key, bare(name))];
      return tokens
        .filter((token) => /^@./.test(token))
        .map((token) => included(path, 'include', bare(token.slice(1))));
    });
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
