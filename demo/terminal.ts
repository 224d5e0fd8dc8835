/**
 * A picture of a terminal: lines of text as an SVG that looks the same with any font, and the text of
 * such a picture again.
 */

/** Longer lines are broken, as a terminal of this width does. */
const COLUMNS = 100;
const CELL = { width: 7.8, height: 17 } as const;
const MARGIN = 16;
const BAR = 30;

const STYLE = `
  text { font: 13px ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #c9d1d9; white-space: pre; }
  .time { fill: #6e7681; } .command { fill: #7ee787; font-weight: bold; } .alarm { fill: #ff7b72; } .good { fill: #79c0ff; }
`;

const escaped = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

const unescaped = (text: string) =>
  text.replaceAll('&gt;', '>').replaceAll('&lt;', '<').replaceAll('&amp;', '&');

/** What a step of the demo begins with. */
const TIME = /^ *\d+\.\d s {2}/;

function colour(text: string): string {
  if (text.startsWith('$ ')) return 'command';
  if (/DROP TABLE|kill -9|disk is gone/.test(text)) return 'alarm';
  return /confirmed commits are there|table is there|own$/.test(text) ? 'good' : '';
}

function wrapped(line: string): string[] {
  const rows: string[] = [];
  for (let at = 0; at === 0 || at < line.length; at += COLUMNS) {
    rows.push(line.slice(at, at + COLUMNS));
  }
  return rows;
}

/** One run of characters; its width is said, since no two fonts have the same. */
function span(text: string, column: number, y: number, style: string): string {
  if (text.trim() === '') return '';
  const x = (MARGIN + column * CELL.width).toFixed(1);
  const length = (text.length * CELL.width).toFixed(1);
  const attribute = style && ` class="${style}"`;
  return `<text x="${x}" y="${y}" textLength="${length}" xml:space="preserve"${attribute}>${escaped(text)}</text>`;
}

/** The picture of these lines. */
export function drawTerminal(title: string, lines: readonly string[]): string {
  const texts: string[] = [];
  let row = 0;
  for (const line of lines) {
    const time = TIME.exec(line)?.[0] ?? '';
    const style = time && colour(line.slice(time.length));
    for (const [i, part] of wrapped(line).entries()) {
      row += 1;
      const y = BAR + row * CELL.height;
      const start = i === 0 ? time.length : 0;
      const spans = [
        span(part.slice(0, start), 0, y, 'time'),
        span(part.slice(start), start, y, style),
      ];
      // A group is a line of the text, however it is broken and coloured.
      texts.push(`${i === 0 ? '<g>' : ''}${spans.join('')}`);
    }
    texts[texts.length - 1] += '</g>';
  }
  const width = Math.ceil(2 * MARGIN + COLUMNS * CELL.width);
  const height = BAR + row * CELL.height + MARGIN;
  const dots = ['#ff5f57', '#febc2e', '#28c840'].map(
    (fill, i) => `<circle cx="${MARGIN + 4 + i * 18}" cy="15" r="5.5" fill="${fill}"/>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
<rect width="${width}" height="${height}" rx="8" fill="#0d1117"/>
${dots.join('')}
${texts.join('\n')}
</svg>
`;
}

/** The lines that a picture shows. */
export function linesOf(picture: string): string[] {
  return [...picture.matchAll(/<g>(.*?)<\/g>/gs)].map(([, group = '']) =>
    [...group.matchAll(/<text [^>]*>([^<]*)<\/text>/g)]
      .map(([, text = '']) => unescaped(text))
      .join(''),
  );
}
