import { readFile } from 'node:fs/promises';
import { EncryptedError } from '../../errors.js';
import { oneLine } from '../../text.js';
import { outputOf } from './command.js';

/** Secret keys to read with. They are in no error and no message. */
export class Identities {
  /** The public key of each, `age1…`. */
  readonly recipients: readonly string[];
  readonly #secrets: readonly string[];

  private constructor(secrets: readonly string[], recipients: readonly string[]) {
    this.#secrets = secrets;
    this.recipients = recipients;
  }

  /**
   * One a line; `#` begins a comment.
   * @param from where the text is from, for errors
   * @throws EncryptedError
   */
  static async parse(text: string, from = 'the identities'): Promise<Identities> {
    const { Decrypter, identityToRecipient } = await import('age-encryption');
    const secrets: string[] = [];
    const recipients: string[] = [];
    for (const [i, line] of text.split('\n').entries()) {
      const secret = line.trim();
      if (secret === '' || secret.startsWith('#')) continue;
      try {
        new Decrypter().addIdentity(secret);
        recipients.push(await identityToRecipient(secret));
        secrets.push(secret);
      } catch {
        // Without the cause, which might quote it.
        throw new EncryptedError(`line ${i + 1} of ${from} is no age identity`, {
          hint: 'An identity begins with AGE-SECRET-KEY-; those of plugins, SSH keys and files with a passphrase are not supported.',
        });
      }
    }
    if (secrets.length === 0) throw new EncryptedError(`there is no age identity in ${from}`);
    return new Identities(secrets, recipients);
  }

  /** @throws EncryptedError */
  static async fromFile(path: string): Promise<Identities> {
    const text = await readFile(path, 'utf8').catch((cause) => {
      const why = oneLine((cause as Error).message);
      throw new EncryptedError(`could not read identity file "${path}": ${why}`, { path, cause });
    });
    return Identities.parse(text, `identity file "${path}"`);
  }

  /**
   * What a command prints, which is run without a shell.
   * @param command see `splitWords`
   * @throws EncryptedError, UsageError
   */
  static async fromCommand(
    command: string | readonly string[],
    options: { timeout?: number; signal?: AbortSignal } = {},
  ): Promise<Identities> {
    return Identities.parse(await outputOf(command, options), 'the output of the identity command');
  }

  /** All of several. */
  static join(all: readonly Identities[]): Identities {
    return new Identities(
      all.flatMap((some) => some.#secrets),
      all.flatMap((some) => some.recipients),
    );
  }

  /**
   * The key of the file with that header; undefined if it is for none of these.
   * @throws Error if the header is damaged
   */
  fileKey(header: Uint8Array): Promise<Uint8Array | undefined> {
    return fileKeyOf(header, this.#secrets);
  }

  /** The public keys of those that open a file with that header. @throws as `fileKey` */
  async opening(header: Uint8Array): Promise<string[]> {
    const keys = await Promise.all(this.#secrets.map((secret) => fileKeyOf(header, [secret])));
    return this.recipients.filter((_, i) => keys[i] !== undefined);
  }
}

async function fileKeyOf(
  header: Uint8Array,
  secrets: readonly string[],
): Promise<Uint8Array | undefined> {
  const { Decrypter } = await import('age-encryption');
  const decrypter = new Decrypter();
  for (const secret of secrets) decrypter.addIdentity(secret);
  let none = false;
  // Asked when all others have been: an error behind that means no more than that none fits.
  decrypter.addIdentity({
    unwrapFileKey: () => {
      none = true;
      return null;
    },
  });
  try {
    return await decrypter.decryptHeader(header);
  } catch (e) {
    if (none) return undefined;
    throw e;
  }
}
