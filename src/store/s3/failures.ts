import { StoreAccessError, StoreUncertainError, type WalkeepError } from '../../errors.js';
import { oneLine } from '../../text.js';

/** Of names that lead nowhere: trying again does not help. */
const NOWHERE = new Set(['ENOTFOUND', 'ENODATA', 'ERR_INVALID_URL']);
/** How OpenSSL and Node call a certificate that is not accepted. */
const CERTIFICATE =
  /^(CERT_|ERR_TLS_CERT|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_CA|PATH_LENGTH_|INVALID_PURPOSE)/;
const TLS = /^(EPROTO|ERR_SSL_|ERR_TLS_)/;

/** What a request failed of that got no answer. */
export function failureOf(cause: unknown, host: string): WalkeepError {
  const { code = '', message = '' } = (cause ?? {}) as { code?: string; message?: string };
  const why = oneLine(message || code || String(cause));
  if (CERTIFICATE.test(code)) {
    return new StoreAccessError(`the certificate of ${host} is not accepted: ${why}`, {
      cause,
      hint: 'Name the file of its authority with ca=, or the host as the certificate has it.',
    });
  }
  if (TLS.test(code)) {
    return new StoreAccessError(`there is no TLS with ${host}: ${why}`, {
      cause,
      hint: 'See whether the endpoint should begin with http:// or has another port.',
    });
  }
  if (NOWHERE.has(code)) {
    return new StoreAccessError(`there is no host ${host}: ${why}`, {
      cause,
      hint: 'See whether the endpoint and the region are spelled right, and the name server.',
    });
  }
  return new StoreUncertainError(`${host} gave no answer: ${why}`, { cause });
}
