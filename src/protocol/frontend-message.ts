import { serialize } from 'pg-protocol/dist/serializer.js';
import { UsageError } from '../errors.js';

/** Length 8, request code 1234.5679 (protocol.sgml, SSLRequest). */
export const SSL_REQUEST: Buffer = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
/** CopyDone. */
export const COPY_DONE: Buffer = Buffer.from([0x63, 0, 0, 0, 4]);
/** CopyData, up to its bytes. */
export function copyDataHeader(length: number): Buffer {
  const header = Buffer.alloc(5);
  header[0] = 0x64;
  header.writeUInt32BE(4 + length, 1);
  return header;
}

/** Terminate. */
export const TERMINATE: Buffer = Buffer.from([0x58, 0, 0, 0, 4]);

/** StartupMessage of protocol 3.0 with the given parameters. @throws UsageError for a NUL in one. */
export function encodeStartup(parameters: Readonly<Record<string, string>>): Buffer {
  const parts: Buffer[] = [Buffer.from([0, 0, 0, 0, 0, 3, 0, 0])];
  for (const [name, value] of Object.entries(parameters)) {
    if (name === '' || `${name}${value}`.includes('\0')) {
      throw new UsageError(`connection parameter ${JSON.stringify(name)} cannot be sent`);
    }
    parts.push(Buffer.from(`${name}\0${value}\0`));
  }
  parts.push(Buffer.from([0]));
  const message = Buffer.concat(parts);
  message.writeUInt32BE(message.length, 0);
  return message;
}

/** Simple query. @throws UsageError for a NUL in it. */
export function encodeQuery(sql: string): Buffer {
  if (sql.includes('\0')) throw new UsageError('a command cannot contain a zero byte');
  return serialize.query(sql);
}

/** PasswordMessage: cleartext or an MD5 hash. */
export function encodePassword(password: string): Buffer {
  return serialize.password(password);
}

/** SASLInitialResponse. */
export function encodeSaslInitial(mechanism: string, response: string): Buffer {
  return serialize.sendSASLInitialResponseMessage(mechanism, response);
}

/** SASLResponse. */
export function encodeSaslResponse(response: string): Buffer {
  return serialize.sendSCRAMClientFinalMessage(response);
}
