/** Composes the messages a server sends (PostgreSQL docs, "Message Formats"), also wrong ones. */

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const int16 = (value: number) => {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
};
const int64 = (value: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value));
  return bytes;
};
const cString = (text: string) => Buffer.from(`${text}\0`);

/** One message: type byte, length, body. `length` overrides the right one. */
export function message(type: string, body: Uint8Array = Buffer.alloc(0), length?: number): Buffer {
  return Buffer.concat([Buffer.from(type, 'latin1'), int32(length ?? body.length + 4), body]);
}

export const authenticationOk = () => message('R', int32(0));
/** Any other authentication request: 3 cleartext, 5 md5 + salt, 10 SASL + mechanisms… */
export const authentication = (code: number, data: Uint8Array = Buffer.alloc(0)) =>
  message('R', Buffer.concat([int32(code), data]));
export const parameterStatus = (name: string, value: string) =>
  message('S', Buffer.concat([cString(name), cString(value)]));
export const backendKeyData = (pid = 4711, secret = 42) =>
  message('K', Buffer.concat([int32(pid), int32(secret)]));
export const readyForQuery = (status = 'I') => message('Z', Buffer.from(status));
export const commandComplete = (tag: string) => message('C', cString(tag));
export const copyDone = () => message('c');
export const copyData = (data: Uint8Array) => message('d', data);
/** CopyBothResponse: binary, no columns. */
export const copyBoth = () => message('W', Buffer.from([0, 0, 0]));
/** CopyInResponse: text, no columns. */
export const copyIn = () => message('G', Buffer.from([0, 0, 0]));
/** CopyOutResponse: text, no columns. */
export const copyOut = () => message('H', Buffer.from([0, 0, 0]));

const fields = (of: Record<string, string>) =>
  Buffer.concat([
    ...Object.entries(of).map(([code, text]) => Buffer.concat([Buffer.from(code), cString(text)])),
    Buffer.from([0]),
  ]);

/** ErrorResponse. More fields by their letter: `D` detail, `H` hint. */
export const errorResponse = (
  sqlstate: string,
  text: string,
  more: Record<string, string> = {},
  severity = 'ERROR',
) => message('E', fields({ S: severity, V: severity, C: sqlstate, M: text, ...more }));
export const noticeResponse = (text: string) =>
  message('N', fields({ S: 'WARNING', V: 'WARNING', C: '01000', M: text }));

/** Text columns; `oid` 25 is text, 17 bytea. */
export const rowDescription = (names: string[], oid = 25) =>
  message(
    'T',
    Buffer.concat([
      int16(names.length),
      ...names.map((name) =>
        // table oid, attribute number, type oid, type length, type modifier, format
        Buffer.concat([
          cString(name),
          int32(0),
          int16(0),
          int32(oid),
          int16(-1),
          int32(-1),
          int16(0),
        ]),
      ),
    ]),
  );

export const dataRow = (values: (string | Uint8Array | null)[]) =>
  message(
    'D',
    Buffer.concat([
      int16(values.length),
      ...values.map((value) => {
        if (value === null) return int32(-1);
        const bytes = Buffer.from(value as string);
        return Buffer.concat([int32(bytes.length), bytes]);
      }),
    ]),
  );

/** A result within an answer: no ReadyForQuery behind it. */
export const rowsOf = (
  names: string[],
  rows: (string | Uint8Array | null)[][],
  tag = 'SELECT',
): Buffer => Buffer.concat([rowDescription(names), ...rows.map(dataRow), commandComplete(tag)]);

/** The messages in CopyData of a base backup (15 and newer). */
export const newArchive = (name: string, location = '') =>
  copyData(Buffer.from(`n${name}\0${location}\0`));
export const archiveData = (data: Uint8Array) => copyData(Buffer.concat([Buffer.from('d'), data]));
export const backupProgress = (bytes: bigint) =>
  copyData(Buffer.concat([Buffer.from('p'), int64(bytes)]));
export const newManifest = () => copyData(Buffer.from('m'));

/** A complete answer to a simple query. */
export const resultSet = (
  row: Record<string, string | Uint8Array | null>,
  tag = 'SELECT',
): Buffer =>
  Buffer.concat([
    rowDescription(Object.keys(row)),
    dataRow(Object.values(row)),
    commandComplete(tag),
    readyForQuery(),
  ]);

/** Microseconds since 2000-01-01, as the replication protocol counts time. */
const now = () => BigInt(Date.now() - Date.UTC(2000, 0, 1)) * 1000n;

/** XLogData in CopyData. `walEnd` defaults to the end of these bytes. */
export const xlogData = (walStart: bigint, data: Uint8Array, walEnd?: bigint) =>
  copyData(
    Buffer.concat([
      Buffer.from('w'),
      int64(walStart),
      int64(walEnd ?? walStart + BigInt(data.length)),
      int64(now()),
      data,
    ]),
  );

/** Primary keepalive in CopyData. */
export const keepalive = (walEnd: bigint, replyRequested = false) =>
  copyData(
    Buffer.concat([
      Buffer.from('k'),
      int64(walEnd),
      int64(now()),
      Buffer.from([replyRequested ? 1 : 0]),
    ]),
  );
