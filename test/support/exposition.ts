export interface ReadSample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const SAMPLE =
  /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|NaN)$/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/;

/**
 * Reads Prometheus's text format, and takes nothing that is not in it: HELP and TYPE before the
 * samples of each metric, all of them together, no series twice, a line feed at the end.
 */
export function readExposition(text: string): ReadSample[] {
  if (!text.endsWith('\n')) throw new Error('no line feed at the end');
  const samples: ReadSample[] = [];
  const seen = new Set<string>();
  let current: string | undefined;
  let typed = false;
  for (const line of text.slice(0, -1).split('\n')) {
    const [, kind, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (kind === 'HELP') {
      if (seen.has(name)) throw new Error(`"${name}" twice`);
      seen.add(name);
      current = name;
      typed = false;
    } else if (kind === 'TYPE') {
      if (name !== current || typed || rest !== 'gauge') throw new Error(`out of place: ${line}`);
      typed = true;
    } else {
      const [, of, labels = '', value = ''] = SAMPLE.exec(line) ?? [];
      if (of === undefined || of !== current || !typed) throw new Error(`out of place: ${line}`);
      const key = `${of}{${labels}}`;
      if (seen.has(key)) throw new Error(`twice: ${key}`);
      seen.add(key);
      samples.push({ name: of, labels: readLabels(labels), value: Number(value) });
    }
  }
  return samples;
}

function readLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (let rest = text; rest !== ''; ) {
    const [whole = '', name = '', value = ''] = LABEL.exec(rest) ?? [];
    if (whole === '' || name in labels) throw new Error(`no label: ${rest}`);
    labels[name] = value.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));
    rest = rest.slice(whole.length);
  }
  return labels;
}
