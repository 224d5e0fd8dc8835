import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../support/scratch.js';

/** A fenced block of a document. */
export interface Block {
  /** Relative to the package, and the line of its fence: how a failure is told. */
  place: string;
  file: string;
  language: string;
  /** What follows the language, e.g. `target=time`: which test uses it. */
  info: string;
  text: string;
}

/** The README, SECURITY.md and everything below docs, relative to the package. */
export const DOCUMENTS: readonly string[] = [
  'README.md',
  'SECURITY.md',
  ...readdirSync(join(packageRoot, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

const FENCE = /^```(.*)$/;

export const readText = (file: string) => readFileSync(join(packageRoot, file), 'utf8');

/** The fenced blocks of a document, in order. */
export function blocksOf(file: string): Block[] {
  const blocks: Block[] = [];
  let open: { block: Block; lines: string[] } | undefined;
  for (const [i, line] of readText(file).split('\n').entries()) {
    const fence = FENCE.exec(line);
    if (!fence) {
      open?.lines.push(line);
    } else if (open) {
      blocks.push({ ...open.block, text: open.lines.join('\n') });
      open = undefined;
    } else {
      const [language = '', ...info] = (fence[1] as string).split(' ');
      const block = { place: `${file}:${i + 1}`, file, language, info: info.join(' '), text: '' };
      open = { block, lines: [] };
    }
  }
  if (open) throw new Error(`${open.block.place}: the block is not closed`);
  return blocks;
}

/** All blocks in one language. */
export const blocksIn = (language: string) =>
  DOCUMENTS.flatMap(blocksOf).filter((block) => block.language === language);

/** A document without its fenced blocks. */
function prose(file: string): string {
  let inside = false;
  const lines = readText(file).split('\n');
  return lines
    .filter((line) => {
      const fence = FENCE.test(line);
      if (fence) inside = !inside;
      return !fence && !inside;
    })
    .join('\n');
}

/** The texts between backticks, with line breaks as spaces. */
export const inlineCode = (file: string) =>
  [...prose(file).matchAll(/`([^`]+)`/g)].map((m) => (m[1] as string).replaceAll(/\s+/g, ' '));

export const links = (file: string) =>
  [...prose(file).matchAll(/\]\(([^)]+)\)/g)].map((m) => m[1] as string);

/** The names that GitHub gives to the headings of a document. */
export const anchors = (file: string) =>
  [...prose(file).matchAll(/^#+ (.+)$/gm)].map((m) =>
    (m[1] as string)
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );

/** The settings in lines of postgresql.conf, by name. */
export function settingsOf(text: string): Record<string, string> {
  const settings: Record<string, string> = {};
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const m = /^(\w+) = (?:'((?:[^']|'')*)'|([\w.]+))$/.exec(line);
    if (!m) throw new Error(`no line of postgresql.conf: ${line}`);
    settings[m[1] as string] = (m[2] ?? m[3] ?? '').replaceAll("''", "'");
  }
  return settings;
}
