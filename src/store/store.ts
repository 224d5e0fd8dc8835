/**
 * Where finished objects live. One contract, kept by every kind of store and by one suite of tests
 * (test/store/contract.ts). What it rests on: an object under its key is complete, was durable
 * before anybody was told so, and is never overwritten.
 *
 * Every method throws StoreUncertainError where the store gave no answer to rely on, or was closed,
 * StoreAccessError where it refused us, UsageError for a key that cannot be one (key.ts), and the
 * signal's reason when aborted. A store on a disk throws DiskFullError and FsyncError too. Only a store that was really asked and knows answers "absent".
 */
export interface ObjectStore extends AsyncDisposable {
  /** What it is called in messages and how it can be opened again, without secrets. */
  readonly place: string;
  /**
   * Stores an object where there is none. Never overwrites: of any number at the same time, in any
   * processes, exactly one creates it. A try whose answer was lost is repeated with the same bytes;
   * `created: true` is answered also where an earlier try of this very call did it. Where there is
   * one already the content is perhaps not even opened.
   * @throws CorruptObjectError if the content is not what it says it is, or what its `open` throws:
   * nothing is stored then
   * @throws StoreUnsupportedError where the store cannot create only what is absent
   */
  create(key: string, content: Content, options?: CreateOptions): Promise<Created>;
  /** Undefined: it is proven absent. */
  get(key: string, options?: GetOptions): Promise<Got | undefined>;
  /** Undefined: it is proven absent. */
  head(key: string, options?: CallOptions): Promise<Head | undefined>;
  /** All whose key begins with `prefix` and comes behind `after`, sorted by the bytes of the key. */
  list(prefix: string, options?: ListOptions): AsyncIterable<Entry>;
  /** Removes objects; one that is not there counts as removed. What a lock holds is `retained`. */
  remove(keys: readonly string[], options?: RemoveOptions): Promise<Removed>;
  /** Tries what the store can do, with objects of its own below `probe/`, which it removes. */
  probe(options?: CallOptions): Promise<Capabilities>;
  /** Ends what is held open; calls under way fail. */
  close(): Promise<void>;
}

export interface CallOptions {
  signal?: AbortSignal | undefined;
}

export interface CreateOptions extends CallOptions {
  /**
   * Stays with the object. Names of `a-z 0-9 -`, values of printable ASCII without spaces at the
   * ends and not empty, 1800 bytes in all; see requireMetadata.
   */
  meta?: Metadata | undefined;
  /**
   * Names this call, so that it can be told from others' when it is repeated: `created: true` if it
   * was created with the same token and content. A random one unless given; it is no part of `meta`.
   */
  token?: string | undefined;
}

export interface GetOptions extends CallOptions {
  /** First byte, and one behind the last; both may lie behind the object's end. */
  range?: { start: number; end: number } | undefined;
}

export interface RemoveOptions extends CallOptions {
  /**
   * With a slash at its end; nobody needs to create anything below it any more. Where keys are paths,
   * directories from there on that have become empty go too.
   */
  prune?: string | undefined;
}

export interface ListOptions extends CallOptions {
  after?: string | undefined;
}

export type Metadata = Readonly<Record<string, string>>;

/** What is to be stored. */
export interface Content {
  /** Bytes. */
  size: number;
  /** SHA-256 of the bytes as they are stored, in hex. */
  sha256: string;
  /**
   * The digest was just taken of these very bytes, in memory that nobody else writes to: it need not
   * be taken once more on the way.
   */
  proven?: true;
  /** The bytes from the beginning, the same at each call: a try may have to be repeated. */
  open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export interface Entry {
  key: string;
  /** Bytes. */
  size: number;
  /** By the store's clock. */
  modified: Date;
}

export interface Head extends Entry {
  /** As it was given to `create`; undefined for what others stored. */
  sha256: string | undefined;
  meta: Metadata;
}

export interface Got extends Head {
  /**
   * The bytes, to be read once, or to be ended early by `return`; or not at all. Each piece belongs
   * to whoever reads it. Size and digest are those of the object, also where a range was asked for.
   * A body that ends before its time throws StoreUncertainError; one that was read whole and has another SHA-256 than `sha256` throws
   * CorruptObjectError at its end.
   */
  body: AsyncIterable<Uint8Array>;
}

export type Created = { created: true } | { created: false; found: Head };

export interface Removed {
  removed: string[];
  retained: string[];
}

export interface Capabilities {
  /** True if it was seen that a second `create` of a key is refused. */
  conditionalCreate: boolean;
  /** Old versions are kept, where the store can tell. */
  versioning?: boolean;
  /** Objects are locked against removal by default, where the store can tell. */
  lock?: boolean;
  /** Milliseconds that the store's clock is ahead of ours, where it tells the time. */
  clockOffset?: number;
}
