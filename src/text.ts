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
