import { oneLine, tame } from '../../text.js';

/** Markup that is known to be what it looks like: only `html` makes it. */
export class Html {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  toString(): string {
    return this.#text;
  }
}

/** What may stand in markup. Nothing at all for undefined, null and false, so that conditions read well. */
export type Content = Html | string | number | undefined | null | false | readonly Content[];

/**
 * Markup with values in it. A value is text, whatever it looks like, in elements and in quoted attributes;
 * what would make text look like another is shown as an escape. Only markup made here is markup.
 */
export function html(texts: TemplateStringsArray, ...values: readonly Content[]): Html {
  let out = texts[0] as string;
  for (const [i, value] of values.entries()) out += rendered(value) + texts[i + 1];
  return new Html(out);
}

/** Text of several lines, which stay lines. */
export function lines(text: string): Html {
  return new Html(escaped(tame(text)));
}

/** Markup one after the other. */
export function joined(parts: readonly Content[], between: Content = ''): Html {
  return new Html(parts.map(rendered).join(rendered(between)));
}

function rendered(value: Content): string {
  if (value instanceof Html) return value.toString();
  if (Array.isArray(value)) return value.map(rendered).join('');
  if (value === undefined || value === null || value === false) return '';
  return escaped(oneLine(String(value)));
}

const ENTITIES: Readonly<Record<string, string>> = {
  ...{ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;', '`': '&#96;' },
};

function escaped(text: string): string {
  return text.replace(/[&<>"'`]/g, (char) => ENTITIES[char] as string);
}
