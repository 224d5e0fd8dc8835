/**
 * Characters that a terminal obeys, or that make text look like another: controls, line and
 * paragraph separators, marks of writing direction.
 */
export const OBEYED = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

const NAMED: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escaped(char: string): string {
  const code = (char.codePointAt(0) as number).toString(16);
  return (
    NAMED[char] ?? (code.length > 2 ? `\\u${code.padStart(4, '0')}` : `\\x${code.padStart(2, '0')}`)
  );
}

/** A name, or whatever anybody may have chosen, as one line that may be shown on a terminal. */
export function oneLine(text: string): string {
  return text.replace(OBEYED, escaped);
}

/** The same for text of several lines. */
export function tame(text: string): string {
  return text.replace(OBEYED, (char) => (char === '\n' || char === '\t' ? char : escaped(char)));
}

/** JSON in which such characters are escaped, as JSON does; it means the same. */
export function tameJson(json: string): string {
  return json.replace(
    OBEYED,
    (char) => `\\u${(char.codePointAt(0) as number).toString(16).padStart(4, '0')}`,
  );
}

/** `a`, `a or b`, `a, b or c`. */
export function inWords(items: readonly string[], conjunction: 'and' | 'or'): string {
  const last = items.at(-1) ?? '';
  const others = items.slice(0, -1).join(', ');
  return others === '' ? last : `${others} ${conjunction} ${last}`;
}

/**
 * `//user:password@`: as a password may hold nearly anything, up to the last `@` of the word. Where
 * it was taken for a path there is one slash left.
 */
const URI_PASSWORD = /((?:\/\/|postgres(?:ql)?:\/)[^\s:@"']*:)[^\s"']*@/g;
/** A keyword whose value is secret, as a connection string or the query of a URI has it. */
const SECRET_VALUE =
  /((?:password|client_secret|scram_(?:client|server)_key)\s*=\s*)('(?:[^'\\]|\\.)*'?|[^\s&"']+)/gi;

/**
 * Text without the passwords of connection strings in it. Where one belongs it is never quoted;
 * this is for one that was given for something else, such as a host, and comes back in an error.
 */
export function withoutSecrets(text: string): string {
  return text.replace(URI_PASSWORD, '$1***@').replace(SECRET_VALUE, '$1***');
}
