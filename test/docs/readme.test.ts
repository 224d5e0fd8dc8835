import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { linesOf } from '../../demo/terminal.js';
import { packageRoot } from '../support/scratch.js';
import { blocksOf, readText } from './documents.js';

const README = readText('README.md');

/** The cells of the rows of the first table behind a heading, the first of its header left out. */
function table(file: string, heading: string): string[][] {
  const text = `\n${readText(file)}`.split(`\n${heading}\n`)[1] ?? '';
  const lines = text.split('\n');
  const begin = lines.findIndex((line) => line.startsWith('|'));
  const end = lines.findIndex((line, i) => i > begin && !line.startsWith('|'));
  return lines.slice(begin, end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** What is below a heading of a document, up to the next one of its level. */
function below(file: string, anchor: string): string {
  const sections = readText(file).split(/^## /m);
  const found = sections.find((text) => text.toLowerCase().startsWith(`${anchor}\n`));
  return found ?? '';
}

describe('the README', () => {
  test('says what it is and gives two commands on its first screen', () => {
    const [first] = blocksOf('README.md');
    expect(Number(first?.place.split(':')[1])).toBeLessThan(15);
    const commands = (first?.text ?? '').split('\n').map((line) => line.split('#')[0]?.trim());
    expect(commands).toEqual(['npm ci && npm run demo', 'npm ci && npm test']);
    const { scripts } = JSON.parse(readText('package.json'));
    expect(Object.keys(scripts)).toEqual(expect.arrayContaining(['demo', 'demo:picture', 'test']));
  });

  test('compares as the page on other tools does', () => {
    const whole = table('docs/comparison.md', '# walkeep beside other tools');
    const short = table('README.md', '## Beside other tools');
    expect(short.length).toBeGreaterThan(5);
    for (const row of short.filter(([name]) => !name?.startsWith('-'))) {
      expect(whole, row[0]).toContainEqual(row);
    }
  });

  test('gives figures that stand where they were measured', () => {
    const [, , ...rows] = table('README.md', '## Figures');
    expect(rows.length).toBeGreaterThan(5);
    for (const [what = '', figure = '', link = ''] of rows) {
      const [, file = '', anchor = ''] = /\]\(([^#)]+)#([^)]+)\)/.exec(link) ?? [];
      const measured = below(file, anchor);
      const numbers = figure.match(/\d+([.,]\d+)*/g) ?? [];
      expect(numbers.length, figure).toBeGreaterThan(0);
      for (const number of [...numbers, ...(what.match(/\d+,\d+/g) ?? [])]) {
        const alone = new RegExp(`(?<![\\d.,])${number.replace('.', '\\.')}(?!\\.?\\d)`);
        expect(measured, `${what}: ${number}`).toMatch(alone);
      }
    }
  });

  test('tells of its pictures what they show', () => {
    const pictures = [...README.matchAll(/!\[([^\]]+)\]\(([^)]+)\)/g)];
    expect(pictures.map(([, , path]) => path)).toEqual([
      'docs/pictures/way.svg',
      'docs/pictures/page.png',
      'docs/pictures/demo.svg',
    ]);
    for (const [, text = '', path = ''] of pictures) {
      expect(text.length).toBeGreaterThan(100);
      if (path.endsWith('.png')) {
        const bytes = readFileSync(join(packageRoot, path));
        expect(bytes.subarray(1, 4).toString()).toBe('PNG');
        expect(bytes.length).toBeLessThan(200_000);
        continue;
      }
      const picture = readFileSync(join(packageRoot, path), 'utf8');
      expect(picture).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"[^>]*viewBox=/);
      expect(picture).toContain('<title>');
      // Nothing is loaded from elsewhere, and no machine is named.
      expect(picture).not.toMatch(/href=|url\((?!#)|@import|\/(home|root|work|tmp)\//);
    }
    const shown = linesOf(readText('docs/pictures/demo.svg')).join('\n');
    for (const number of ['400 confirmed commits', '50000 rows']) {
      expect(README).toContain(number);
      expect(shown).toContain(number);
    }
  });
});
