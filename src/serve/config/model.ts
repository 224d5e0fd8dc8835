import * as z from 'zod';
import { isLevelOf, RECEIVED } from '../../codec/codecs.js';
import { inWords } from '../../text.js';
import { absolutePath, COMPRESS, name, notify, store, work } from './work-model.js';

/** Bytes of a unix socket's path, with the NUL behind it (sockaddr_un). */
const LONGEST_SOCKET_PATH = 107;

/** `127.0.0.1:8481`, `[::]:8481` */
export const LISTEN = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]\s]+):(\d{1,5})$/;

function isListen(text: string): boolean {
  const port = LISTEN.exec(text)?.[2];
  return port !== undefined && Number(port) < 65_536;
}

function isCompression(text: string): boolean {
  const [, name, level] = COMPRESS.exec(text) ?? [];
  const method = RECEIVED.find((one) => one === name);
  return method !== undefined && (level === undefined || isLevelOf(method, Number(level)));
}

const slot = z
  .string()
  .regex(/^[a-z0-9_]{1,63}$/, {
    error: 'must be the name of a slot: a to z, 0 to 9 and _, at most 63 of them',
  })
  .describe('Physical replication slot that keeps WAL until it is received.');

const ensureSlot = z
  .boolean()
  .describe('Create the slot where it is missing, and anew where it keeps no WAL any more.');

const synchronous = z
  .boolean()
  .describe('Sync and confirm WAL as it comes, so that commits can wait for it.');

const allowGroupAccess = z
  .boolean()
  .describe("Files are readable for their group, whatever the server's are.");

const compress = z
  .string()
  .refine(isCompression, {
    error: `must be ${inWords(RECEIVED, 'or')}; a level stands behind it, as in gzip:6`,
  })
  .describe('How completed segments are stored.');

const members = z
  .strictObject({
    hosts: z
      .array(z.string().min(1, { error: 'must not be empty' }))
      .min(1, { error: 'must name at least one host' })
      .optional()
      .describe('Servers that may be promoted; those of the connection unless given.'),
    slots: z
      .enum(['walkeep', 'external'])
      .describe(
        'Who keeps the slot on each of them; external is Patroni, CloudNativePG or the like.',
      ),
  })
  .describe('The servers that may be promoted: the slot has to be on each of them.');

const defaults = z
  .strictObject({
    slot: slot.optional(),
    ensure_slot: ensureSlot.optional(),
    synchronous: synchronous.optional(),
    compress: compress.optional(),
    allow_group_access: allowGroupAccess.optional(),
    ...work,
  })
  .describe('What holds for each server that does not say otherwise.');

const server = z
  .strictObject({
    connection: z
      .string()
      .min(1, { error: 'must not be empty' })
      .describe('Connection string or URI, as libpq takes it, without a password.'),
    password_file: absolutePath
      .optional()
      .describe('File that holds the password and nothing else; read at every connection.'),
    directory: absolutePath.describe(
      'Existing directory that takes the WAL, of this server alone.',
    ),
    ...defaults.shape,
    members: members.optional(),
  })
  .describe('A server whose WAL is received.');

const control = z
  .strictObject({
    socket: absolutePath
      .refine((path) => Buffer.byteLength(path) <= LONGEST_SOCKET_PATH, {
        error: `must have at most ${LONGEST_SOCKET_PATH} bytes, as a path of a socket`,
      })
      .describe(
        'Unix socket, made with mode 0600, that "walkeep status" and "walkeep ctl" talk to.',
      ),
  })
  .describe('How the running program is asked and told.');

const metrics = z
  .strictObject({
    listen: z
      .string()
      .refine(isListen, { error: 'must be HOST:PORT, as 127.0.0.1:8481 or "[::]:8481"' })
      .describe('Where /metrics, /livez and /readyz are answered, and nothing else.'),
  })
  .describe('For Prometheus, and whoever asks whether the program is well.');

const web = z
  .strictObject({
    listen: z
      .string()
      .refine(isListen, { error: 'must be HOST:PORT, as 127.0.0.1:8480 or "[::1]:8480"' })
      .describe('Where the status page is answered.'),
    token_file: absolutePath
      .optional()
      .describe('File with the token that whoever looks at the page has to give.'),
    tls: z
      .strictObject({
        cert_file: absolutePath.describe('Certificate and those that it rests on, in PEM.'),
        key_file: absolutePath.describe('Its private key, in PEM.'),
      })
      .optional()
      .describe('For https.'),
  })
  .describe('The status page. On other than loopback addresses it needs a token and TLS.');

/** The whole file. What is not in here is refused. */
export const CONFIG = z
  .strictObject({
    version: z.literal(1).describe('Of this format.'),
    control: control.optional(),
    web: web.optional(),
    metrics: metrics.optional(),
    notify: notify.optional(),
    stores: z
      .record(name, store)
      .optional()
      .describe('Stores, by the name that each goes by here.'),
    defaults: defaults.optional(),
    servers: z
      .record(name, server)
      .refine((all) => Object.keys(all).length > 0, { error: 'must have at least one server' })
      .describe('By the name that each goes by here.'),
  })
  .describe('Configuration of "walkeep serve".');

/** A file that is valid, before defaults. */
export type ConfigFile = z.infer<typeof CONFIG>;

/** For editors, which complete and check by it. */
export function jsonSchema(): object {
  return { title: 'walkeep.yaml', ...z.toJSONSchema(CONFIG, { io: 'input' }) };
}

export const check = (value: unknown) => CONFIG.safeParse(value);
export type Issue = z.core.$ZodIssue;

/** The keys that the mapping at `path` may have. */
export function knownKeys(path: readonly PropertyKey[]): string[] {
  let at: unknown = CONFIG;
  for (const key of path) {
    if (at instanceof z.ZodOptional) at = at.unwrap();
    if (at instanceof z.ZodObject) at = at.shape[key as string];
    else if (at instanceof z.ZodRecord) at = at.valueType;
  }
  if (at instanceof z.ZodOptional) at = at.unwrap();
  return at instanceof z.ZodObject ? Object.keys(at.shape) : [];
}
