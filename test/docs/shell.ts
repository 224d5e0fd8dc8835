/**
 * The commands in the lines of a shell, as words without their quotes. Variables stay as they are.
 * Knows what the documentation uses, and refuses the rest.
 */
export function commandsOf(text: string): string[][] {
  const commands: string[][] = [];
  let words: string[] = [];
  let word: string | undefined;
  const endWord = () => {
    if (word !== undefined) words.push(word);
    word = undefined;
  };
  const endCommand = () => {
    endWord();
    if (words.length > 0) commands.push(words);
    words = [];
  };
  for (let i = 0; i < text.length; ) {
    const rest = text.slice(i);
    const quoted = /^'([^']*)'|^"((?:[^"\\]|\\.)*)"/.exec(rest);
    if (quoted) {
      word = (word ?? '') + (quoted[1] ?? quoted[2]?.replaceAll(/\\(.)/g, '$1') ?? '');
      i += quoted[0].length;
      continue;
    }
    const skip = /^(\\\n|#.*|&&|\|\||[|;\n]|[ \t]+)/.exec(rest)?.[0];
    if (skip?.startsWith('#') && word !== undefined) {
      word += '#';
      i += 1;
    } else if (skip !== undefined) {
      if (/^(&&|\|\||[|;\n])/.test(skip)) endCommand();
      else endWord();
      i += skip.length;
    } else {
      const char = rest[0] as string;
      if (/['"`<>&()\\]/.test(char)) throw new Error(`not understood: ${rest.split('\n')[0]}`);
      word = (word ?? '') + char;
      i += 1;
    }
  }
  endCommand();
  return commands;
}
