import { posix } from 'node:path';
import type { ReplicationConnection } from '../connection/connection.js';
import { ServerError } from '../errors.js';
import { type Included, includedByAuthentication, includedBySettings } from './included-files.js';
import { sqlRows } from './sql.js';

/** What a server reads, or needs to start, from outside its data directory. */
export interface OutsideFile {
  /** Absolute, on the server. */
  path: string;
  /** `tls`: a certificate or key, which is named and never read. */
  kind: 'settings' | 'authentication' | 'directory' | 'tls';
  /** Undefined where it was not read. */
  content: Buffer | undefined;
}

export interface OutsideConfiguration {
  /** In the order of their paths; undefined where the role may not know even their names. */
  files: OutsideFile[] | undefined;
  /** All of them are known, and the content of all but TLS files is. */
  complete: boolean;
}

/** Bytes of a file that is read: real ones have some ten thousand. */
const MAX_CONTENT = 1024 * 1024;
/** Files that are looked at: an endless chain of includes must have an end here. */
const MAX_FILES = 500;

const ROOTS = [
  ['config_file', 'settings'],
  ['hba_file', 'authentication'],
  ['ident_file', 'authentication'],
] as const;
/** A server with `ssl = on` does not start without them. */
const TLS = [
  'ssl_cert_file',
  'ssl_key_file',
  'ssl_ca_file',
  'ssl_crl_file',
  'ssl_crl_dir',
  'ssl_dh_params_file',
] as const;

interface Asked {
  /** SHOW; undefined where that is not allowed. */
  show(name: string): Promise<string | undefined>;
  sql: ReplicationConnection | undefined;
  dataDirectory: string | undefined;
}

/** Follows the includes of all configuration files, as far as the role may read them. */
export async function readOutsideConfiguration(asked: Asked): Promise<OutsideConfiguration> {
  const { show, sql, dataDirectory } = asked;
  if (dataDirectory === undefined) return { files: undefined, complete: false };
  const walk = new Walk(sql, dataDirectory);
  for (const [name, kind] of ROOTS) {
    const path = await show(name);
    if (path) walk.add({ path: posix.resolve(dataDirectory, path), optional: false }, kind);
    else walk.complete = false;
  }
  for (const path of await sourceFiles(sql)) walk.add({ path, optional: true }, 'settings');
  await walk.run();
  if ((await show('ssl')) === 'on') {
    for (const name of TLS) {
      const path = await show(name);
      if (path) walk.note(posix.resolve(dataDirectory, path), 'tls', undefined);
    }
  }
  return { files: walk.files(), complete: walk.complete };
}

/** Files with a setting that is in force: members of pg_read_all_settings see them. */
async function sourceFiles(sql: ReplicationConnection | undefined): Promise<string[]> {
  if (!sql) return [];
  const rows = await sqlRows(
    sql,
    'SELECT DISTINCT sourcefile FROM pg_settings WHERE sourcefile IS NOT NULL',
  );
  return rows.map((row) => row.sourcefile ?? '').filter((path) => path.startsWith('/'));
}

type Queued = Included & { kind: 'settings' | 'authentication' };

class Walk {
  complete = true;
  readonly #sql: ReplicationConnection | undefined;
  readonly #dataDirectory: string;
  readonly #found = new Map<string, OutsideFile>();
  readonly #queue: Queued[] = [];
  readonly #seen = new Set<string>();

  constructor(sql: ReplicationConnection | undefined, dataDirectory: string) {
    this.#sql = sql;
    this.#dataDirectory = posix.normalize(`${dataDirectory}/`);
  }

  add(file: Included, kind: Queued['kind']): void {
    if (this.#seen.has(file.path)) return;
    this.#seen.add(file.path);
    if (this.#seen.size > MAX_FILES) this.complete = false;
    else this.#queue.push({ ...file, kind });
  }

  note(path: string, kind: OutsideFile['kind'], content: Buffer | undefined): void {
    if (path.startsWith(this.#dataDirectory)) return;
    this.#found.set(path, { path, kind, content });
  }

  async run(): Promise<void> {
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      if (next.directory) await this.#directory(next.path, next.kind);
      else await this.#file(next);
    }
  }

  files(): OutsideFile[] {
    return [...this.#found.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  }

  async #file({ path, optional, kind }: Queued): Promise<void> {
    const content = await this.#ask(
      `SELECT encode(pg_read_binary_file(${literal(path)}, 0, ${MAX_CONTENT + 1}), 'base64')`,
    );
    if (content === 'missing' && optional) return;
    const [text] = Array.isArray(content) ? content : [];
    const bytes = text === undefined ? undefined : Buffer.from(text, 'base64');
    const whole = bytes && bytes.length <= MAX_CONTENT ? bytes : undefined;
    this.note(path, kind, whole);
    if (!whole) {
      this.complete = false;
      return;
    }
    const included = kind === 'settings' ? includedBySettings : includedByAuthentication;
    for (const file of included(path, whole.toString('utf8'))) this.add(file, kind);
  }

  /** A directory that is included must exist, and may be empty. */
  async #directory(path: string, kind: Queued['kind']): Promise<void> {
    this.note(path, 'directory', undefined);
    const names = await this.#ask(`SELECT pg_ls_dir(${literal(path)})`);
    if (!Array.isArray(names)) {
      this.complete = false;
      return;
    }
    for (const name of names.sort()) {
      if (!/^[^.].*\.conf$/s.test(name)) continue;
      this.add({ path: posix.join(path, name), optional: true }, kind);
    }
  }

  /** The values of one column. */
  async #ask(query: string): Promise<string[] | 'missing' | undefined> {
    const sql = this.#sql;
    if (!sql) return undefined;
    try {
      const { rows } = await sql.query(query);
      return rows.map(([value]) => value?.toString('utf8') ?? '');
    } catch (e) {
      if (!(e instanceof ServerError) || sql.closed) throw e;
      // 58P01: undefined_file.
      return e.sqlstate === '58P01' ? 'missing' : undefined;
    }
  }
}

/** A string constant whatever standard_conforming_strings says. */
function literal(text: string): string {
  return ` E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}
