import { Parser } from 'pg-protocol/dist/parser.js';
import { ProtocolError, WalkeepError } from '../errors.js';

/** The texts of an ErrorResponse or NoticeResponse that walkeep uses. */
export interface ServerNotice {
  /** As the server localised it: ERROR, FATAL, WARNING, … */
  severity: string | undefined;
  /** SQLSTATE, five characters. */
  code: string | undefined;
  message: string;
  detail: string | undefined;
  hint: string | undefined;
}

/** One column of a RowDescription. */
export interface ResultField {
  name: string;
  typeOid: number;
}

/** A decoded message of the server; field names as in the protocol documentation. */
export type BackendMessage =
  | { name: 'authentication'; method: number; data: Buffer }
  | { name: 'dataRow'; values: (Buffer | null)[]; byteLength: number }
  | { name: 'rowDescription'; fields: ResultField[] }
  | { name: 'commandComplete'; text: string }
  | { name: 'readyForQuery'; status: string }
  | { name: 'parameterStatus'; parameterName: string; parameterValue: string }
  | { name: 'error' | 'notice'; notice: ServerNotice }
  | { name: 'backendKeyData' | 'copyDone' | 'copyBothResponse' | 'negotiateProtocolVersion' }
  | { name: 'emptyQuery' | 'copyInResponse' | 'copyOutResponse' | 'notification' | 'other' };

const KNOWN = new Uint8Array(256);
for (const type of '123ACDEGHIKNRSTWZcdnstv') KNOWN[type.charCodeAt(0)] = 1;

/** True if the byte is the type of a message that a server may send. */
export function isBackendType(type: number): boolean {
  return KNOWN[type] === 1;
}

/** `"x"` or `0x01`: a type byte for an error text. */
export function printType(type: number): string {
  return type > 0x20 && type < 0x7f
    ? `"${String.fromCharCode(type)}"`
    : `0x${type.toString(16).padStart(2, '0')}`;
}

const HEADER = 5;

/**
 * Decodes one whole frame (type byte, 4-byte length, body) in memory that is not used again:
 * values of a DataRow are views of it.
 * @throws ProtocolError if the body does not have the shape of its type.
 */
export function decodeFrame(frame: Buffer): BackendMessage {
  const type = frame[0] as number;
  try {
    switch (type) {
      case 0x52: // R
        return {
          name: 'authentication',
          method: frame.readInt32BE(HEADER),
          data: frame.subarray(9),
        };
      case 0x44: // D
        return decodeDataRow(frame);
      case 0x57: // W
        return { name: 'copyBothResponse' };
      case 0x76: // v
        return { name: 'negotiateProtocolVersion' };
      case 0x45: // E
      case 0x4e: // N
        checkNotice(frame);
        return convert(parseOne(frame));
      default:
        return convert(parseOne(frame));
    }
  } catch (cause) {
    if (cause instanceof WalkeepError) throw cause;
    throw new ProtocolError(`invalid message of type ${printType(type)} from server`, { cause });
  }
}

/** Values stay bytes: pg-protocol would decode them as UTF-8, which a history file need not be. */
function decodeDataRow(frame: Buffer): BackendMessage {
  const count = frame.readUInt16BE(HEADER);
  const values: (Buffer | null)[] = [];
  let offset = HEADER + 2;
  for (let i = 0; i < count; i++) {
    const length = frame.readInt32BE(offset);
    offset += 4;
    if (length < 0) {
      if (length !== -1) throw new ProtocolError(`invalid value length ${length} in a data row`);
      values.push(null);
      continue;
    }
    if (length > frame.length - offset) {
      throw new ProtocolError('insufficient data in a data row');
    }
    values.push(frame.subarray(offset, offset + length));
    offset += length;
  }
  if (offset !== frame.length) throw new ProtocolError('extraneous data in a data row');
  return { name: 'dataRow', values, byteLength: frame.length };
}

/** pg-protocol reads fields until a zero byte and would never end on a body without one. */
function checkNotice(frame: Buffer): void {
  let offset = HEADER;
  while (frame[offset] !== 0) {
    const end = frame.indexOf(0, offset + 1);
    if (offset >= frame.length || end < 0) throw new ProtocolError('unterminated error message');
    offset = end + 1;
  }
}

/** What pg-protocol yields, with the fields of all the messages we read. */
interface ParsedMessage extends Partial<Omit<ServerNotice, 'message'>> {
  name: string;
  message?: string;
  text?: string;
  status?: string;
  parameterName?: string;
  parameterValue?: string;
  fields?: { name: string; dataTypeID: number }[];
}

/** A new parser each time: one that has thrown keeps half a message. Not on the hot path. */
function parseOne(frame: Buffer): ParsedMessage {
  let result: ParsedMessage | undefined;
  new Parser().parse(frame, (message) => {
    result = message as unknown as ParsedMessage;
  });
  if (result === undefined) throw new ProtocolError('incomplete message from server');
  return result;
}

function convert(parsed: ParsedMessage): BackendMessage {
  switch (parsed.name) {
    case 'error':
    case 'notice':
      return {
        name: parsed.name,
        notice: {
          severity: parsed.severity,
          code: parsed.code,
          message: parsed.message ?? '',
          detail: parsed.detail,
          hint: parsed.hint,
        },
      };
    case 'rowDescription':
      return {
        name: 'rowDescription',
        fields: (parsed.fields ?? []).map((f) => ({ name: f.name, typeOid: f.dataTypeID })),
      };
    case 'commandComplete':
      return { name: 'commandComplete', text: parsed.text ?? '' };
    case 'readyForQuery':
      return { name: 'readyForQuery', status: parsed.status ?? '' };
    case 'parameterStatus':
      return {
        name: 'parameterStatus',
        parameterName: parsed.parameterName ?? '',
        parameterValue: parsed.parameterValue ?? '',
      };
    case 'backendKeyData':
    case 'copyDone':
    case 'emptyQuery':
    case 'copyInResponse':
    case 'copyOutResponse':
    case 'notification':
      return { name: parsed.name };
    default:
      return { name: 'other' };
  }
}
