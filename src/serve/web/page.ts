import type { WorkConfig } from '../config/config.js';
import type { BuilderAnswer } from '../restore/builder.js';
import type { LogEntry, ServerStatus } from '../status.js';
import type { Html } from './html.js';

/**
 * What is answered on the status page is made of this, at once: nothing is read or waited for, but for
 * what a restore would do.
 */
export interface WebFacts {
  servers(): ServerStatus[];
  /** The last reading of the configuration was good. */
  configIsGood(): boolean;
  /** What is configured for a server. */
  work(server: string): WorkConfig | undefined;
  /** What a restore would do, which another process finds out. */
  restore(server: ServerStatus, query: URLSearchParams): Promise<BuilderAnswer>;
}

/** What is remembered for the page alone. */
export interface Remembered {
  /** The newest last. */
  events(server?: string): readonly Noted[];
  /** How far behind a server was, the newest last. */
  lag(server: string): readonly Lag[];
}

export interface Noted {
  /** Milliseconds since 1970, as all times here. */
  at: number;
  entry: LogEntry;
}

export interface Lag {
  at: number;
  rpoSeconds: number;
}

export interface PageRequest {
  facts: WebFacts;
  memory: Remembered;
  /** Of this moment, as `facts` has it. */
  server: ServerStatus;
  query: URLSearchParams;
  now: number;
}

export interface PageAnswer {
  /** 200 unless given. */
  status?: number;
  /** Without the name of the program. */
  title: string;
  /** What stands below the navigation; its first element is an h1. */
  body: Html;
}

/**
 * A page of one server, at `/server/NAME/…`: GET only, changes nothing. Styles are classes of the one
 * style sheet; neither `style` nor `on…` nor scripts work here (Content-Security-Policy).
 */
export type ServerPage = (request: PageRequest) => Promise<PageAnswer>;

/** The same for programs, at `/server/NAME/….json`. */
export type ServerData = (request: PageRequest) => Promise<{ status: number; value: object }>;
