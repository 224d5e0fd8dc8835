/** What of the demo's output is shown in its picture, and what of that is the same in every run. */

/** Of the settings only that there are some; blank lines one at a time. */
export function shortened(output: string): string[] {
  const lines: string[] = [];
  let settings = false;
  for (const line of output.trimEnd().split('\n')) {
    if (settings && line.startsWith('  ')) continue;
    settings = line === 'settings';
    if (line === '' && (lines.at(-1) ?? '') === '') continue;
    lines.push(settings ? 'settings  …' : line);
  }
  return lines;
}

/**
 * Lines without what is another in each run: figures, units, widths of columns, and how often the demo
 * says how far it is.
 */
export function shapeOf(lines: readonly string[]): string[] {
  return lines
    .filter((line) => line !== '' && !/^ *\d+\.\d s +\d+ commits +\d+ segments/.test(line))
    .map((line) =>
      line
        .replaceAll(/\b\d{8}T\d{6}F-[0-9a-f]+/g, 'BACKUP')
        .replaceAll(/\b[0-9A-F]+\/[0-9A-F]+\b/g, 'LSN')
        .replaceAll(/\b[0-9A-F]{24}\b/g, 'SEGMENT')
        .replaceAll(/\d+(\.\d+)?( (ms|s|min|B|kB|MB|GB)(\/s)?\b)?/g, '#')
        .replaceAll(/━+/g, '━')
        .replaceAll(/ +/g, ' ')
        .trim(),
    );
}
