import { KEYWORDS } from './keywords.js';

/** The values that a connection string gives, and what of the string may be shown in an error. */
export class KeywordValues {
  readonly map = new Map<string, string>();
  #secretSeen = false;

  /** False when the keyword is unknown. `requiressl` is translated to `sslmode`, as in libpq. */
  store(name: string, value: string): boolean {
    if (name === 'requiressl') {
      this.map.set('sslmode', value.startsWith('1') ? 'require' : 'prefer');
      return true;
    }
    const keyword = KEYWORDS.get(name);
    if (!keyword) return false;
    if (keyword.secret) this.#secretSeen = true;
    this.map.set(name, value);
    return true;
  }

  /**
   * A name as an error message may show it. An unquoted blank or `&` in a password makes its rest
   * look like the next name, so no unexpected name is shown once a secret has been read.
   */
  shown(name: string): string {
    return this.#secretSeen ? '***' : withoutCredentials(name);
  }
}

/** The text with everything between the first `:` (or the start) and the last `@` hidden. */
export function withoutCredentials(text: string): string {
  const at = text.lastIndexOf('@');
  if (at < 0) return text;
  const colon = text.indexOf(':');
  return `${colon >= 0 && colon < at ? text.slice(0, colon + 1) : ''}***${text.slice(at)}`;
}
