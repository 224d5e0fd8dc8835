import { StringDecoder } from 'node:string_decoder';

/** Makes lines of what a program prints; of one that is too long the rest is dropped. */
export class Lines {
  readonly #decoder = new StringDecoder('utf8');
  readonly #most: number;
  readonly #line: (line: string) => void;
  #text = '';
  /** The rest of this line is dropped. */
  #isCut = false;

  /** @param most characters of a line */
  constructor(most: number, line: (line: string) => void) {
    this.#most = most;
    this.#line = line;
  }

  take(bytes: Buffer): void {
    const [first = '', ...others] = this.#decoder.write(bytes).split('\n');
    this.#add(first);
    for (const piece of others) {
      this.end();
      this.#add(piece);
    }
  }

  #add(piece: string): void {
    if (this.#isCut) return;
    this.#text += piece;
    if (this.#text.length <= this.#most) return;
    this.#text = this.#text.slice(0, this.#most);
    this.#isCut = true;
  }

  /** There is no more of this line. */
  end(): void {
    const line = this.#text.replace(/\r$/, '');
    this.#text = '';
    this.#isCut = false;
    if (line !== '') this.#line(line);
  }
}
