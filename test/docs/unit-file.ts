import { readText } from './documents.js';

/** Settings of a section, in order; a name may stand there more than once. */
export type Section = readonly (readonly [name: string, value: string])[];

/** The sections of a unit of systemd. @throws if a line is none of a unit */
export function unitOf(file: string): Map<string, Section> {
  const sections = new Map<string, [string, string][]>();
  let current: [string, string][] | undefined;
  for (const line of readText(file).split('\n')) {
    const heading = /^\[(\w+)\]$/.exec(line)?.[1];
    const [, name, value] = /^([A-Z]\w+)=(.*)$/.exec(line) ?? [];
    if (heading !== undefined) {
      current = [];
      sections.set(heading, current);
    } else if (current && name !== undefined) current.push([name, value as string]);
    else if (line !== '' && !line.startsWith('#')) throw new Error(`no line of a unit: ${line}`);
  }
  return sections;
}
