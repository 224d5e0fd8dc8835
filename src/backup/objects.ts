import { createHash, randomUUID } from 'node:crypto';
import type { BackupArea } from '../archive/backups/area.js';
import { backupKey } from '../archive/backups/keys.js';
import type { BackupObject } from '../base/backup-record.js';
import type { Recipients } from '../codec/age/recipients.js';
import { encodeSegment } from '../codec/stages.js';
import { StoreConflictError, StoreUncertainError } from '../errors.js';
import type { Content } from '../store/store.js';

/** How often an answer may be lost before a backup fails: the stores themselves repeat as well. */
const MOST_TRIES = 3;

/** Again, where it was not answered: for what may be done twice. */
export async function surely<T>(act: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await act();
    } catch (e) {
      if (!(e instanceof StoreUncertainError) || tries === MOST_TRIES || signal?.aborted) throw e;
    }
  }
}

/**
 * Creates an object that nobody else has reason to create. A try whose answer was lost is repeated
 * as the same one, so that its own success is not taken for somebody else's.
 * @throws StoreConflictError if there is one; StoreUncertainError, StoreAccessError
 */
export async function createOwn(
  { store }: Pick<BackupArea, 'store'>,
  key: string,
  content: Content,
  signal: AbortSignal | undefined,
): Promise<void> {
  const token = randomUUID();
  const create = () => store.create(key, content, { token, signal });
  if ((await surely(create, signal)).created) return;
  throw new StoreConflictError(`"${key}" in "${store.place}" was created by somebody else`, {
    key,
    hint: 'Nothing was replaced. See who else writes below this backup, and take another one.',
  });
}

/** Stores the objects of one backup and remembers what its record says of them. */
export class BackupObjects {
  /** In the order in which they were stored. */
  readonly stored: BackupObject[];
  readonly #area: BackupArea;
  readonly #id: string;
  readonly #recipients: Recipients | undefined;
  readonly #signal: AbortSignal | undefined;

  constructor(
    area: BackupArea,
    id: string,
    options: {
      /** Stored before. */
      claim: BackupObject;
      recipients?: Recipients | undefined;
      signal?: AbortSignal | undefined;
    },
  ) {
    this.stored = [options.claim];
    this.#area = area;
    this.#id = id;
    this.#recipients = options.recipients;
    this.#signal = options.signal;
  }

  /**
   * @param plain what is to be stored, encrypted where that was asked for
   * @throws as `createOwn`
   */
  async put(name: string, plain: Uint8Array, known: KnownBytes = {}): Promise<void> {
    const { read = () => {} } = known;
    const pieces = await this.#pieces(plain);
    if (this.#recipients) read();
    const sha256 = (this.#recipients ? undefined : known.sha256) ?? digestOf(pieces);
    const size = pieces.reduce((sum, { length }) => sum + length, 0);
    const key = backupKey(this.#area.prefix, this.#id, name);
    const content: Content = { size, sha256, proven: true, open: () => pieces };
    await createOwn(this.#area, key, content, this.#signal);
    if (!this.#recipients) read();
    this.stored.push({ name, size, sha256 });
  }

  async #pieces(plain: Uint8Array): Promise<Uint8Array[]> {
    if (!this.#recipients) return [plain];
    const pieces: Uint8Array[] = [];
    const sealed = encodeSegment(plain, { recipients: this.#recipients });
    for await (const piece of sealed) pieces.push(piece);
    return pieces;
  }
}

/** What is known of bytes that are to be stored. */
export interface KnownBytes {
  /** Called as soon as they are of no more use. */
  read?: (() => void) | undefined;
  /** In hex. */
  sha256?: string | undefined;
}

function digestOf(pieces: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest('hex');
}
