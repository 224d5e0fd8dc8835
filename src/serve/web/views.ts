import type { LivePage, LivePart } from './layout.js';

interface Shown {
  html: string;
  /** Of the version in which it became this. */
  changed: number;
}

/** What changed since somebody saw a page. */
export interface Changes {
  version: string;
  /** Markup by id; undefined: other parts are there than before, so all has to be loaded again. */
  parts: Readonly<Record<string, string>> | undefined;
}

/** A page as it was last, and since when each of its parts is as it is. */
export class View {
  readonly #make: () => LivePage | undefined;
  /** Versions of another process mean nothing here. */
  readonly #epoch = Date.now().toString(36);
  #version = 0;
  #ids = '';
  #idsChanged = 0;
  #parts = new Map<string, Shown>();

  /** @param make the page of now; undefined: what it is about is gone */
  constructor(make: () => LivePage | undefined) {
    this.#make = make;
  }

  get version(): string {
    return `${this.#epoch}-${this.#version}`;
  }

  /** Makes it as of now. */
  refresh(): LivePage | undefined {
    const page = this.#make();
    const parts: readonly LivePart[] = page?.parts ?? [];
    const ids = parts.map(({ id }) => id).join(' ');
    const next = this.#version + 1;
    let changed = false;
    if (ids !== this.#ids) {
      this.#ids = ids;
      this.#idsChanged = next;
      changed = true;
    }
    const shown = new Map<string, Shown>();
    for (const { id, body } of parts) {
      const text = body.toString();
      const before = this.#parts.get(id);
      if (before?.html === text) shown.set(id, before);
      else {
        shown.set(id, { html: text, changed: next });
        changed = true;
      }
    }
    this.#parts = shown;
    if (changed) this.#version = next;
    return page;
  }

  /** As of the last refresh. Undefined: nothing did. */
  since(version: string): Changes | undefined {
    if (version === this.version) return undefined;
    const [epoch, digits] = version.split('-');
    const seen = epoch === this.#epoch ? Number(digits) : Number.NaN;
    if (!(seen >= this.#idsChanged)) return { version: this.version, parts: undefined };
    const changed = [...this.#parts].filter(([, part]) => part.changed > seen);
    return {
      version: this.version,
      parts: Object.fromEntries(changed.map(([id, { html }]) => [id, html])),
    };
  }
}
