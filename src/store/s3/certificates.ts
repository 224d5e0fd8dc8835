import { readFileSync } from 'node:fs';
import { StoreAccessError } from '../../errors.js';

/** The certificates of authorities in a file, in PEM. @throws StoreAccessError */
export function readCertificates(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new StoreAccessError(`cannot read the certificates of the authority "${path}"`, {
      path,
      cause,
    });
  }
  // Node takes any text and then trusts nobody, which reads as if the server were at fault.
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw new StoreAccessError(`"${path}" has no certificate in PEM in it`, { path });
}
