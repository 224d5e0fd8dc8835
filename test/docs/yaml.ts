export type Yaml = string | Yaml[] | { [key: string]: Yaml };

interface Line {
  indent: number;
  text: string;
  number: number;
}

/**
 * The documents of a YAML file in the plain style that manifests are written in: block mappings and
 * sequences, plain and quoted scalars (all as text), `|`. Refuses everything else.
 */
export function parseYaml(source: string): Yaml[] {
  return source.split(/^---$/m).map((document) => new Parser(document).document());
}

class Parser {
  private readonly lines: Line[];
  private readonly raw: string[];
  private at = 0;

  constructor(text: string) {
    this.raw = text.split('\n');
    this.lines = this.raw.flatMap((line, number) => {
      const text = line.replace(/(^|\s)#.*$/, '').trimEnd();
      if (text.includes('\t')) throw this.error(number, 'a tab');
      const indent = text.length - text.trimStart().length;
      return text.trim() === '' ? [] : [{ indent, text: text.trim(), number }];
    });
  }

  document(): Yaml {
    const value = this.block(0);
    if (this.at < this.lines.length) throw this.error(this.next.number, 'wrong indentation');
    return value;
  }

  private get next(): Line {
    return this.lines[this.at] as Line;
  }

  private error(number: number, what: string): Error {
    return new Error(`${what}: ${this.raw[number]}`);
  }

  private block(indent: number): Yaml {
    return this.next.text.startsWith('- ') ? this.sequence(indent) : this.mapping(indent);
  }

  private sequence(indent: number): Yaml[] {
    const items: Yaml[] = [];
    while (this.next?.indent === indent && this.next.text.startsWith('- ')) {
      const line = this.next;
      const text = line.text.slice(2);
      if (KEY.test(text)) {
        // A mapping whose first line stands behind the dash.
        this.lines[this.at] = { ...line, indent: indent + 2, text };
        items.push(this.mapping(indent + 2));
      } else {
        items.push(this.scalar(text, line));
        this.at += 1;
      }
    }
    return items;
  }

  private mapping(indent: number): Yaml {
    const map: { [key: string]: Yaml } = {};
    while (this.next?.indent === indent) {
      const line = this.next;
      const [, key, value] = KEY.exec(line.text) ?? [];
      if (key === undefined) throw this.error(line.number, 'no key');
      if (key in map) throw this.error(line.number, 'key given twice');
      this.at += 1;
      if (value === '|') map[key] = this.literal(indent);
      else if (value) map[key] = this.scalar(value, line);
      else if (this.next && this.next.indent > indent) map[key] = this.block(this.next.indent);
      else throw this.error(line.number, 'no value');
    }
    return map;
  }

  private literal(indent: number): string {
    const taken: string[] = [];
    for (; this.next && this.next.indent > indent; this.at++) {
      taken.push((this.raw[this.next.number] as string).trim());
    }
    return `${taken.join('\n')}\n`;
  }

  private scalar(text: string, line: Line): string {
    const quoted = /^"([^"\\]*)"$|^'([^']*)'$/.exec(text);
    if (quoted) return quoted[1] ?? (quoted[2] as string);
    if (/^[&*!>%@`{}[\]"'|]|: |:$/.test(text)) throw this.error(line.number, 'not understood');
    return text;
  }
}

const KEY = /^([\w./-]+):(?: (.+))?$/;
