import {
  type Document,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type Scalar,
  type YAMLMap,
} from 'yaml';
import type { ConfigFault } from '../../errors.js';
import { oneLine, withoutSecrets } from '../../text.js';
import { type Path, pathText } from './fault.js';
import { substitute } from './variables.js';

/** No configuration is nested so deeply. */
const DEEPEST = 32;
/** Faults that are told of one file. */
export const MOST_FAULTS = 100;

/** The texts of the parser quote the file, where a secret may stand: these do not. */
const SYNTAX: Readonly<Record<string, string>> = {
  BAD_ALIAS: 'this alias is not valid',
  BAD_COLLECTION_TYPE: 'this tag does not fit what it stands before',
  BAD_DIRECTIVE: 'this directive is not known',
  BAD_DQ_ESCAPE:
    'an escape in double quotes is not valid; in single quotes "\\" is a plain character',
  BAD_INDENT: 'the indentation is wrong',
  BAD_PROP_ORDER: 'anchor or tag stands in the wrong place',
  BAD_SCALAR_START: 'a value that begins with this character must be quoted',
  BLOCK_AS_IMPLICIT_KEY: 'a mapping cannot begin here; a value with ": " in it must be quoted',
  BLOCK_IN_FLOW: 'within brackets or braces there can be no block',
  DUPLICATE_KEY: 'this key is there twice',
  KEY_OVER_1024_CHARS: 'a key has at most 1024 characters',
  MISSING_CHAR: 'a bracket, brace, quote, comma or colon is missing',
  MULTILINE_IMPLICIT_KEY: 'a key must be on one line; is a ":" missing?',
  MULTIPLE_DOCS: 'there must be one document only',
  NON_STRING_KEY: 'a key must be a text',
  RESOURCE_EXHAUSTION: 'it is nested too deeply',
  TAB_AS_INDENT: 'a tab cannot indent; use blanks',
  TAG_RESOLVE_FAILED: 'tags are not supported',
  UNEXPECTED_TOKEN: 'something is there that cannot be there',
};

interface Place {
  key: number;
  value: number;
}

/** What a YAML text says, with the place of each key and value. */
export class ConfigDocument {
  /** Objects, arrays and scalars; undefined if there is nothing that could be judged. */
  readonly value: unknown;
  readonly faults: ConfigFault[] = [];
  readonly #lines = new LineCounter();
  readonly #places = new Map<string, Place>();
  readonly #text: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(text: string, env: NodeJS.ProcessEnv) {
    this.#text = text;
    this.#env = env;
    const document = this.#parse();
    if (document) this.value = this.#read(document.contents, [], 0);
  }

  #parse(): Document.Parsed | undefined {
    let document: Document.Parsed;
    try {
      document = parseDocument(this.#text, {
        ...{ version: '1.2', schema: 'core', strict: true, stringKeys: true, uniqueKeys: true },
        ...{ prettyErrors: false, logLevel: 'error', lineCounter: this.#lines },
      });
    } catch (e) {
      if (!(e instanceof RangeError)) throw e;
      this.#fault(0, [], SYNTAX.RESOURCE_EXHAUSTION as string);
      return undefined;
    }
    const { errors, warnings } = document;
    const exhausted = errors.find((e) => e.code === 'RESOURCE_EXHAUSTION');
    const found = exhausted ? [exhausted] : [...errors, ...warnings];
    for (const { code, pos } of found.slice(0, MOST_FAULTS)) {
      this.#fault(pos[0], [], SYNTAX[code] ?? `this is not valid YAML (${code})`);
    }
    // What was read all the same may not be what was meant; twice a key, it is.
    if (found.some(({ code }) => code !== 'DUPLICATE_KEY')) return undefined;
    if (document.contents === null) {
      this.#fault(0, [], 'there is nothing in it');
      return undefined;
    }
    return document;
  }

  #read(node: Node | null, path: Path, offset: number): unknown {
    if (node === null) return null;
    const at = node.range?.[0] ?? offset;
    const refuse = (message: string): undefined => {
      this.#fault(at, path, message);
      return undefined;
    };
    if (path.length > DEEPEST) return refuse(SYNTAX.RESOURCE_EXHAUSTION as string);
    if ('anchor' in node && node.anchor !== undefined) return refuse('anchors are not supported');
    if ('tag' in node && node.tag !== undefined) return refuse('tags are not supported');
    if (isScalar(node)) return this.#scalar(node, path, at);
    if (isMap(node)) return this.#map(node, path);
    if (isSeq(node)) {
      return node.items.map((item, i) => this.#item(item, [...path, i], at));
    }
    return refuse('aliases are not supported; what holds for all servers stands in "defaults"');
  }

  #item(item: unknown, path: Path, offset: number): unknown {
    const node = isPair(item) ? null : (item as Node | null);
    const value = node?.range?.[0] ?? offset;
    this.#places.set(JSON.stringify(path), { key: value, value });
    return this.#read(node, path, value);
  }

  #map(map: YAMLMap, path: Path): object {
    const entries: [string, unknown][] = [];
    for (const { key, value } of map.items) {
      const keyNode = key as Scalar;
      const at = keyNode.range?.[0] ?? map.range?.[0] ?? 0;
      if (!isScalar(keyNode) || typeof keyNode.value !== 'string') {
        this.#fault(at, path, SYNTAX.NON_STRING_KEY as string);
        continue;
      }
      const name = keyNode.value;
      const below = [...path, name];
      // To JavaScript it is no key like others.
      if (name === '__proto__') {
        this.#fault(at, path, 'unknown key "__proto__"');
        continue;
      }
      const node = value as Node | null;
      this.#places.set(JSON.stringify(below), { key: at, value: node?.range?.[0] ?? at });
      entries.push([name, this.#read(node, below, at)]);
    }
    return Object.fromEntries(entries);
  }

  #scalar(node: Scalar, path: Path, at: number): unknown {
    const { value } = node;
    if (typeof value !== 'string' || !value.includes('$')) return value;
    const source = this.#text.slice(at, node.range?.[1] ?? at);
    const { text, fault, quoted } = substitute(value, source, this.#env);
    if (fault) {
      this.#fault(at + fault.offset, path, fault.message);
      return undefined;
    }
    // As if it stood there: a switch or a number may come from a variable, too.
    if (quoted || text === value) return text;
    if (text === 'true' || text === 'false') return text === 'true';
    return /^[-+]?\d{1,15}$/.test(text) ? Number(text) : text;
  }

  /** True if a fault of this very value was told. */
  isFaulty(path: Path): boolean {
    const at = pathText(path);
    return this.faults.some((fault) => fault.at === at);
  }

  /** A fault of a value, or of one that is missing there: the nearest that is there is shown. */
  fault(path: Path, message: string, of: 'key' | 'value' = 'value', shown = path): void {
    for (let above = path; ; above = above.slice(0, -1)) {
      const place = this.#places.get(JSON.stringify(above));
      if (!place && above.length > 0) continue;
      const key = of === 'key' || above.length < path.length;
      this.#fault((key ? place?.key : place?.value) ?? 0, shown, message);
      return;
    }
  }

  #fault(offset: number, path: Path, message: string): void {
    const { line, col } = this.#lines.linePos(offset);
    const at = oneLine(withoutSecrets(pathText(path)));
    this.faults.push({ line: Math.max(1, line), column: Math.max(1, col), at, message });
  }
}
