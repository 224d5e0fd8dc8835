import { ConninfoError } from '../../errors.js';
import { parseUri, uriPrefixLength } from './conninfo-uri.js';
import { KeywordValues } from './keyword-values.js';

const isBlank = (char: string | undefined) => char !== undefined && ' \t\n\v\f\r'.includes(char);

/**
 * Reads a connection string in either of libpq's forms, `keyword = value …` or a
 * `postgresql://` URI (PostgreSQL docs, "Connection Strings"), as PQconninfoParse does: only what
 * the string itself says, no defaults. A keyword given twice has its last value.
 * @throws ConninfoError with libpq's wording, except that nothing that may be part of a password
 * is shown.
 */
export function parseConninfo(text: string): Map<string, string> {
  // In the startup packet a NUL ends a value, what follows would be read as further parameters.
  if (text.includes('\0')) throw new ConninfoError('connection string contains a NUL character');
  const values = new KeywordValues();
  if (uriPrefixLength(text) > 0) parseUri(text, values);
  else parseKeywordValues(text, values);
  return values.map;
}

function parseKeywordValues(text: string, values: KeywordValues): void {
  let at = 0;
  const skipBlanks = () => {
    while (isBlank(text[at])) at++;
  };

  for (skipBlanks(); at < text.length; skipBlanks()) {
    const nameStart = at;
    while (at < text.length && text[at] !== '=' && !isBlank(text[at])) at++;
    const name = text.slice(nameStart, at);
    skipBlanks();
    if (text[at] !== '=') {
      throw new ConninfoError(
        `missing "=" after "${values.shown(name)}" in connection info string`,
      );
    }
    at++;
    skipBlanks();

    const quoted = text[at] === "'";
    if (quoted) at++;
    let value = '';
    for (;;) {
      const char = text[at];
      if (char === undefined) {
        if (!quoted) break;
        throw new ConninfoError('unterminated quoted string in connection info string');
      }
      at++;
      if (quoted ? char === "'" : isBlank(char)) break;
      // A backslash makes the next character plain; at the very end it stands for nothing.
      value += char === '\\' ? (text[at++] ?? '') : char;
    }

    if (!values.store(name, value)) {
      throw new ConninfoError(`invalid connection option "${values.shown(name)}"`);
    }
  }
}
