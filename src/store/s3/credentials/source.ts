import { homedir } from 'node:os';
import type { S3Place } from '../../place.js';

/** What signs requests. */
export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  /** Of temporary ones. */
  sessionToken?: string;
  /** When they stop being accepted; undefined: never, as far as their source says. */
  expiration?: Date;
}

export interface CredentialSource {
  /** Ones to sign the next request with; a source keeps and renews them itself. */
  get(signal?: AbortSignal): Promise<Credentials>;
  /**
   * The store refused ones: the next `get` asks their origin again.
   * @param refused so that an answer which comes late does not cost the ones that were renewed since
   * @param sure false: it may be a right that is missing; where the origin gives no others now, they
   *   are used on
   */
  invalidate(refused?: Credentials, sure?: boolean): void;
}

/** Where credentials come from: asked anew each time. */
export type Origin = () => Promise<Credentials>;

export type Environment = Readonly<Record<string, string | undefined>>;

/** What a search for credentials can see. */
export interface Surroundings {
  env: Environment;
  place: Pick<S3Place, 'profile' | 'region' | 'endpoint'>;
  /** Of the user: `~` of the shared files. */
  home: string;
  now(): number;
  /** For one question to STS or a container's endpoint. */
  timeoutMs: number;
  /** Where ECS answers. */
  containerOrigin: string;
  /** The AWS SDK's providers, an optional package. */
  importProviders(): Promise<unknown>;
}

export type SurroundingsOptions = Partial<Omit<Surroundings, 'env' | 'place'>>;

export function surroundings(
  place: Surroundings['place'],
  env: Environment,
  options: SurroundingsOptions = {},
): Surroundings {
  // A variable, so that neither the compiler nor a bundler looks for what is not installed.
  const providers: string = PROVIDERS;
  return {
    env,
    place,
    home: env.HOME || homedir(),
    now: Date.now,
    timeoutMs: 5000,
    containerOrigin: 'http://169.254.170.2',
    importProviders: () => import(providers),
    ...options,
  };
}

export const PROVIDERS = '@aws-sdk/credential-providers';
