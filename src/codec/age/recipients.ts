import { UsageError } from '../../errors.js';

/** Those who can read what is encrypted. */
export interface Recipients {
  /** `age1…`, as given. */
  readonly names: readonly string[];
  /** A new key for one file, and the header that hands it to each of them. */
  header(): Promise<{ header: Uint8Array; fileKey: Uint8Array }>;
}

/** Behind the header the library puts a nonce and an empty piece. */
const EMPTY_PAYLOAD = 32;

/**
 * @param given recipients, or the text of a file with one a line, where `#` begins a comment
 * @throws UsageError
 */
export async function parseRecipients(given: string | readonly string[]): Promise<Recipients> {
  const names = (typeof given === 'string' ? given.split(/\r?\n/) : given)
    .map((name) => name.trim())
    .filter((name) => name !== '' && !name.startsWith('#'));
  if (names.length === 0) throw new UsageError('no age recipient was given');
  const { Encrypter } = await import('age-encryption');
  const encrypter = new Encrypter();
  for (const name of names) {
    // Never quoted: it may come from a log.
    if (/^AGE-/i.test(name) && !name.startsWith('age1')) {
      throw new UsageError('an age identity was given where a recipient is wanted', {
        hint: 'Give the public key, which begins with age1; the identity stays where it is read.',
      });
    }
    try {
      encrypter.addRecipient(name);
    } catch (cause) {
      throw new UsageError(`"${name}" is no age recipient`, {
        cause,
        hint: 'A recipient begins with age1; age-keygen -y tells that of an identity.',
      });
    }
  }
  return {
    names,
    async header() {
      let fileKey: Uint8Array | undefined;
      const own = new Encrypter();
      for (const name of names) own.addRecipient(name);
      own.addRecipient({
        wrapFileKey: (key) => {
          fileKey = Uint8Array.from(key);
          return [];
        },
      });
      const file = await own.encrypt(new Uint8Array(0));
      const header = file.subarray(0, file.length - EMPTY_PAYLOAD);
      return { header, fileKey: fileKey as Uint8Array };
    },
  };
}
