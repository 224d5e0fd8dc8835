import { unlessAborted } from '../../aborted.js';
import type { CredentialSource, Credentials, Origin } from './source.js';

/** So long before their end credentials are renewed, if they last long enough for that. */
const EARLY_MS = 5 * 60_000;
/** At most this often an origin is asked that fails, or whose credentials are over when they come. */
const AGAIN_MS = 30_000;

interface Held {
  credentials: Credentials;
  renewAt: number;
  /** Up to then they are used, whatever the origin says. */
  usableUntil: number;
  /** Others are asked for first, and these are used only where the origin gives none. */
  doubted?: boolean;
}

/**
 * Keeps the credentials of an origin and renews them before they end. While they last a renewal goes
 * on beside, and one that fails costs nothing; one question at a time, however many wait for it.
 */
export class RenewedCredentials implements CredentialSource {
  readonly #origin: Origin;
  readonly #now: () => number;
  #held: Held | undefined;
  #question: Promise<Credentials> | undefined;

  constructor(origin: Origin, now: () => number = Date.now) {
    this.#origin = origin;
    this.#now = now;
  }

  async get(signal?: AbortSignal): Promise<Credentials> {
    signal?.throwIfAborted();
    const held = this.#held;
    const now = this.#now();
    if (held && now < held.renewAt) return held.credentials;
    const question = this.#ask();
    if (!held || now >= held.usableUntil) return unlessAborted(question, signal);
    if (held.doubted) {
      return unlessAborted(
        question.catch(() => this.#undoubted(held)),
        signal,
      );
    }
    question.catch(() => {
      held.renewAt = Math.min(this.#now() + AGAIN_MS, held.usableUntil);
    });
    return held.credentials;
  }

  invalidate(refused?: Credentials, sure = true): void {
    const held = this.#held;
    if (!held || (refused !== undefined && refused !== held.credentials)) return;
    if (sure) this.#held = undefined;
    else Object.assign(held, { doubted: true, renewAt: 0 });
  }

  #undoubted(held: Held): Credentials {
    Object.assign(held, {
      doubted: false,
      renewAt: Math.min(this.#now() + AGAIN_MS, held.usableUntil),
    });
    return held.credentials;
  }

  /** One question for all who ask meanwhile; it goes on when one of them gives up. */
  #ask(): Promise<Credentials> {
    this.#question ??= this.#origin()
      .then((credentials) => {
        this.#held = held(credentials, this.#now());
        return credentials;
      })
      .finally(() => {
        this.#question = undefined;
      });
    return this.#question;
  }
}

function held(credentials: Credentials, now: number): Held {
  const end = credentials.expiration?.getTime() ?? Number.POSITIVE_INFINITY;
  // Over when they come: our clock is wrong, or their service is in trouble. The store decides.
  if (end <= now) return { credentials, renewAt: now + AGAIN_MS, usableUntil: now + AGAIN_MS };
  return { credentials, renewAt: end - Math.min(EARLY_MS, (end - now) / 2), usableUntil: end };
}
