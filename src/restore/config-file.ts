/** Reading and changing files of PostgreSQL's settings (utils/misc/guc-file.l), line by line. */

/** The block that a restore writes at the end of postgresql.auto.conf. */
export const BLOCK_BEGIN = '# walkeep restore begin';
export const BLOCK_END = '# walkeep restore end';

const SETTING =
  /^\s*([A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)?)(?:\s*=\s*|\s+)('(?:[^'\\\n]|\\.|'')*'|[^\s#']+)\s*(?:#.*)?$/;

/** A setting of a line, its name in lower case; undefined where the line has none. */
export function settingOf(line: string): { name: string; value: string } | undefined {
  const found = SETTING.exec(line);
  if (!found) return undefined;
  const [, name = '', written = ''] = found;
  return { name: name.toLowerCase(), value: unquoted(written) };
}

function unquoted(written: string): string {
  if (!written.startsWith("'")) return written;
  const inner = written.slice(1, -1).replaceAll("''", "'");
  return inner.replace(/\\([0-7]{1,3}|.)/g, (_, code: string) => {
    const named: Record<string, string> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };
    if (/^[0-7]/.test(code)) return String.fromCharCode(Number.parseInt(code, 8) & 0xff);
    return named[code] ?? code;
  });
}

/** A value as a file of settings has it. */
export function quoted(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''").replaceAll('\n', '\\n')}'`;
}

/** The last value of each setting in a file, without those of files that it includes. */
export function settingsIn(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of text.split('\n')) {
    const setting = settingOf(line);
    if (setting) found.set(setting.name, setting.value);
  }
  return found;
}

/** The text without the block, and without the settings for which `drop` is true. */
export function without(text: string, drop: (name: string) => boolean = () => false): string {
  const kept: string[] = [];
  let inBlock = false;
  for (const line of text.split('\n')) {
    if (line.trim() === BLOCK_BEGIN) inBlock = true;
    const { name } = settingOf(line) ?? {};
    if (!inBlock && (name === undefined || !drop(name))) kept.push(line);
    if (line.trim() === BLOCK_END) inBlock = false;
  }
  return kept.join('\n').replace(/\n*$/, (end) => (end === '' ? '' : '\n'));
}

/** True if a restore wrote a block into it. */
export function hasBlock(text: string): boolean {
  return text.split('\n').some((line) => line.trim() === BLOCK_BEGIN);
}

/** The text with a block at its end. */
export function withBlock(text: string, lines: readonly string[]): string {
  const before = text === '' || text.endsWith('\n') ? text : `${text}\n`;
  return `${before}${[BLOCK_BEGIN, ...lines, BLOCK_END].join('\n')}\n`;
}
