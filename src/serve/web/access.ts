import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/** A session ends so long after the token was given. */
const SESSION = 12 * 3_600_000;
/** A shorter token could be found by trying. */
export const SHORTEST_TOKEN = 16;
/** Milliseconds before another token is looked at after a wrong one, doubling up to the longest. */
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 30_000;
/** So many addresses are remembered that gave wrong ones. */
const MOST_ADDRESSES = 1000;

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** `yes`; `no`; `wait`: too many wrong ones came from there, this one was not looked at. */
export type Verdict = 'yes' | 'no' | 'wait';

/** Who gets in by a token: gives it each time (Authorization: Bearer), or once for a cookie. */
export class Access {
  readonly #token: Buffer;
  readonly #sessionKey: Buffer;
  readonly #secure: boolean;
  readonly #wrong = new Map<string, { count: number; until: number }>();

  /** @param secure the cookie is for https only */
  constructor(token: string, secure: boolean) {
    this.#token = digest(token);
    // A cookie never says anything of the token, and ends with it.
    this.#sessionKey = createHmac('sha256', token).update('walkeep session').digest();
    this.#secure = secure;
  }

  /** @param address of whoever asks */
  admits({ authorization, cookie }: IncomingHttpHeaders, address: string, now: number): Verdict {
    if (this.#isSession(cookie, now)) return 'yes';
    const token = /^Bearer +(\S+)\s*$/i.exec(authorization ?? '')?.[1];
    return token === undefined ? 'no' : this.judge(token, address, now);
  }

  judge(token: string, address: string, now: number): Verdict {
    const key = network(address);
    const wrong = this.#wrong.get(key);
    // Further ahead it is only since the clock was put back.
    if (wrong && now < wrong.until && wrong.until - now <= LONGEST_WAIT) return 'wait';
    if (timingSafeEqual(digest(token), this.#token)) {
      this.#wrong.delete(key);
      return 'yes';
    }
    const count = wrong && now - wrong.until < LONGEST_WAIT ? wrong.count + 1 : 1;
    const until = now + Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(count - 1, 10));
    this.#wrong.delete(key);
    this.#wrong.set(key, { count, until });
    const [oldest] = this.#wrong.keys();
    if (this.#wrong.size > MOST_ADDRESSES && oldest !== undefined) this.#wrong.delete(oldest);
    return 'no';
  }

  /** Seconds until a token from there is looked at again. */
  waitSeconds(address: string, now: number): number {
    const until = this.#wrong.get(network(address))?.until ?? now;
    return Math.max(1, Math.ceil((until - now) / 1000));
  }

  /** Value of Set-Cookie for whoever gave the token. */
  session(now: number): string {
    const until = now + SESSION;
    const value = `${until}.${this.#sign(until)}`;
    const maxAge = SESSION / 1000;
    const attributes = `Path=/; Max-Age=${maxAge}; HttpOnly; SameSite=Strict`;
    return `${this.#name}=${value}; ${attributes}${this.#secure ? '; Secure' : ''}`;
  }

  get #name(): string {
    return this.#secure ? '__Host-walkeep' : 'walkeep';
  }

  #sign(until: number): string {
    return createHmac('sha256', this.#sessionKey).update(`${until}`).digest('base64url');
  }

  #isSession(cookies: string | undefined, now: number): boolean {
    for (const one of (cookies ?? '').split(';').slice(0, 50)) {
      const [, name, until, signature = ''] =
        /^\s*([^=]+)=(\d{1,15})\.([\w-]+)\s*$/.exec(one) ?? [];
      if (name !== this.#name) continue;
      const signed = timingSafeEqual(digest(signature), digest(this.#sign(Number(until))));
      if (signed && now < Number(until) && Number(until) <= now + SESSION) return true;
    }
    return false;
  }
}

/** An address of IPv4, or the network of one of IPv6, of which everybody has many. */
function network(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined || !address.includes(':')) return mapped ?? address;
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? [];
  const groups = head.split(':').filter((group) => group !== '');
  const rest = (tail ?? '').split(':').filter((group) => group !== '');
  const zeros = tail === undefined ? 0 : 8 - groups.length - rest.length;
  return [...groups, ...Array(Math.max(0, zeros)).fill('0'), ...rest].slice(0, 4).join(':');
}

/** `127.0.0.1`, `::1`: addresses that nobody on another machine gets to. */
export function isLoopback(address: string): boolean {
  return /^(::ffff:)?127\.\d+\.\d+\.\d+$/i.test(address) || address === '::1';
}

/**
 * Whether a page asked for under this name is asked for by its own address. A web site can have its name
 * lead to a loopback address, and would then read what is answered there.
 */
export function isLocalName(host: string | undefined): boolean {
  const name = /^(\[[^\]]*\]|[^:]*)(:\d{1,5})?$/.exec(host ?? '')?.[1]?.toLowerCase();
  if (name === undefined) return false;
  return name === 'localhost' || isLoopback(name.replace(/^\[(.*)\]$/, '$1'));
}
