import type { ConfigFault } from '../../errors.js';

export type Path = readonly (string | number)[];

/** `servers.shop.members.hosts[0]` */
export function pathText(path: Path): string {
  return path.reduce<string>(
    (text, key) => text + (typeof key === 'number' ? `[${key}]` : text === '' ? key : `.${key}`),
    '',
  );
}

/** `walkeep.yaml:3:5: servers.shop.slot: must be a string` */
export function faultLine(file: string, { line, column, at, message }: ConfigFault): string {
  return `${file}:${line}:${column}: ${at === '' ? '' : `${at}: `}${message}`;
}

/** In the order of the text, each once. */
export function inOrder(faults: readonly ConfigFault[]): ConfigFault[] {
  const different = new Map(faults.map((fault) => [faultLine('', fault), fault]));
  return [...different.values()].sort((a, b) => a.line - b.line || a.column - b.column);
}
