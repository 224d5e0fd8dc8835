import { type FileHandle, open, readFile } from 'node:fs/promises';

/** The numbers of confirmed commits in a file, each durable before it counts. */
export class CommitLog {
  readonly path: string;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  static async create(path: string): Promise<CommitLog> {
    // O_SYNC and O_APPEND: one write, one durable line, whoever else writes.
    return new CommitLog(path, await open(path, 'as'));
  }

  async add(n: number): Promise<void> {
    await this.#handle.write(`${n}\n`);
  }

  /** What the file says. */
  async read(): Promise<number[]> {
    const text = await readFile(this.path, 'utf8');
    return text.split('\n').filter(Boolean).map(Number);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}
