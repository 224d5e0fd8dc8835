import { createHash } from 'node:crypto';
import { TlsError } from '../errors.js';

/**
 * Hash by signature algorithm OID (hex of the DER content). MD5 and SHA-1 become SHA-256
 * (RFC 5929 section 4.1).
 */
const SIGNATURE_HASH: Readonly<Record<string, string>> = {
  '2a864886f70d010104': 'sha256', // md5WithRSAEncryption
  '2a864886f70d010105': 'sha256', // sha1WithRSAEncryption
  '2a864886f70d01010e': 'sha224',
  '2a864886f70d01010b': 'sha256',
  '2a864886f70d01010c': 'sha384',
  '2a864886f70d01010d': 'sha512',
  '2a8648ce3d0401': 'sha256', // ecdsa-with-SHA1
  '2a8648ce3d040301': 'sha224',
  '2a8648ce3d040302': 'sha256',
  '2a8648ce3d040303': 'sha384',
  '2a8648ce3d040304': 'sha512',
  '2a8648ce380403': 'sha256', // dsa-with-SHA1
  '608648016503040301': 'sha224', // dsa-with-SHA224
  '608648016503040302': 'sha256',
};
const RSA_PSS = '2a864886f70d01010a';
const HASH_OID: Readonly<Record<string, string>> = {
  '2b0e03021a': 'sha256', // SHA-1
  '608648016503040204': 'sha224',
  '608648016503040201': 'sha256',
  '608648016503040202': 'sha384',
  '608648016503040203': 'sha512',
};

const SEQUENCE = 0x30;
const OBJECT_IDENTIFIER = 0x06;
/** Context tag [0]: hashAlgorithm in RSASSA-PSS-params (RFC 4055). */
const PSS_HASH = 0xa0;

/**
 * The `tls-server-end-point` binding (RFC 5929) of a server certificate in DER.
 * @throws TlsError if the signature algorithm names no hash (Ed25519, for example; libpq as well).
 */
export function serverEndPoint(certificate: Buffer): Buffer {
  let algorithm: string | undefined;
  try {
    algorithm = signatureHash(certificate);
  } catch (cause) {
    throw new TlsError('could not read the server certificate', { cause });
  }
  if (!algorithm) {
    throw new TlsError('could not determine server certificate signature algorithm', {
      hint: 'Use channel_binding=disable, or a certificate signed with RSA or ECDSA.',
    });
  }
  return createHash(algorithm).update(certificate).digest();
}

/** Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm { OID, parameters }, … }. */
function signatureHash(certificate: Buffer): string | undefined {
  const whole = element(certificate, 0, SEQUENCE);
  const tbs = element(certificate, whole.start, SEQUENCE);
  const algorithm = element(certificate, tbs.end, SEQUENCE);
  const oid = element(certificate, algorithm.start, OBJECT_IDENTIFIER);
  const name = certificate.toString('hex', oid.start, oid.end);
  if (name !== RSA_PSS) return SIGNATURE_HASH[name];
  const params = element(certificate, oid.end, SEQUENCE);
  // An absent hashAlgorithm means SHA-1, which the binding replaces by SHA-256.
  if (params.start === params.end || certificate[params.start] !== PSS_HASH) return 'sha256';
  const tagged = element(certificate, params.start, PSS_HASH);
  const hash = element(certificate, tagged.start, SEQUENCE);
  const hashOid = element(certificate, hash.start, OBJECT_IDENTIFIER);
  return HASH_OID[certificate.toString('hex', hashOid.start, hashOid.end)];
}

/** Bounds of the content of the DER element of this tag at `offset`. */
function element(der: Buffer, offset: number, tag: number): { start: number; end: number } {
  if (der[offset] !== tag) throw new RangeError(`no DER tag ${tag} at ${offset}`);
  let length = der.readUInt8(offset + 1);
  let start = offset + 2;
  if (length & 0x80) {
    const size = length & 0x7f;
    length = der.readUIntBE(start, size);
    start += size;
  }
  if (start + length > der.length) throw new RangeError(`DER element at ${offset} is too long`);
  return { start, end: start + length };
}
