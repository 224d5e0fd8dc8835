import type { OptionSpec } from './option-spec.js';

/** No help line is longer: the usual terminal. */
export const HELP_WIDTH = 80;
const COLUMN = 25;

/** What stands around the options in a help text. */
export interface HelpTexts {
  intro: string;
  usage: string;
  closing: string;
}

/** Help in the layout of PostgreSQL's programs: groups of options, descriptions in one column. */
export function renderHelp(specs: readonly OptionSpec[], texts: HelpTexts): string {
  const lines = [texts.intro, '', 'Usage:', `  ${texts.usage}`];
  for (const group of new Set(specs.map((s) => s.group))) {
    lines.push('', group);
    for (const spec of specs) if (spec.group === group) lines.push(...optionLines(spec));
  }
  return `${lines.join('\n')}\n\n${texts.closing}\n`;
}

function optionLines(spec: OptionSpec): string[] {
  const short = spec.short === undefined ? '   ' : `-${spec.short},`;
  const argument = spec.argument === undefined ? '' : `=${spec.argument}`;
  const name = `  ${short} --${spec.long}${argument}`;
  const note = spec.default === undefined ? '' : ` (default: ${spec.default})`;
  const [first = '', ...rest] = fold(spec.help + note, HELP_WIDTH - COLUMN);
  const indent = ' '.repeat(COLUMN);
  const opening = name.length < COLUMN - 1 ? [name.padEnd(COLUMN) + first] : [name, indent + first];
  return [...opening, ...rest.map((line) => indent + line)];
}

/** Breaks a text at blanks into lines of at most `width`. */
export function fold(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
