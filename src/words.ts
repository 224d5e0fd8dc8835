/** For a POSIX shell, one word. */
export function quoteWord(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * The words of a command that is started without a shell: between blanks, with quotes and backslashes
 * as a shell has them, and nothing else of a shell. Undefined: a quote or backslash lacks its end.
 */
export function splitWords(text: string): string[] | undefined {
  const words: string[] = [];
  const pattern = /\s+|'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^\s'"\\]+)/gsy;
  let word: string | undefined;
  let match = pattern.exec(text);
  for (let at = 0; at < text.length; match = pattern.exec(text)) {
    if (!match) return undefined;
    at = pattern.lastIndex;
    const [all, single, double, escaped, plain] = match;
    const part = single ?? double?.replace(/\\(["\\$`])/g, '$1') ?? escaped ?? plain;
    if (part !== undefined) word = (word ?? '') + part;
    else if (all && word !== undefined) {
      words.push(word);
      word = undefined;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}
