import type { S3Place } from '../place.js';

/** Where a request goes to, in the form that requests and signatures need. */
export interface Target {
  secure: boolean;
  hostname: string;
  port: number;
  /** As the Host header has it: without the port where it is the usual one. */
  host: string;
  /** Encoded, with the query. */
  path: string;
}

const DEFAULT_REGION = 'us-east-1';

/** Where the bucket of a place is. It may move once: the service says the region that is right. */
export class Address {
  readonly #place: S3Place;
  #region: string;
  #endpoint: string | undefined;
  #redirected: URL | undefined;

  constructor(place: S3Place, region: string | undefined) {
    this.#place = place;
    this.#region = place.region ?? region ?? DEFAULT_REGION;
    this.#endpoint = place.endpoint;
  }

  /** What is configured beside the place, once that is known. */
  settle({ region, endpoint }: { region: string | undefined; endpoint: string | undefined }): void {
    this.#region = region ?? this.#region;
    this.#endpoint = endpoint;
  }

  get region(): string {
    return this.#region;
  }

  /** The service's own hosts have the region in their names. */
  moveTo(region: string): void {
    this.#region = region;
    this.#redirected = undefined;
  }

  /** Another host for the bucket, as a redirect names it. False: it is not to be followed. */
  redirect(location: string): boolean {
    const url = URL.canParse(location) ? new URL(location) : undefined;
    if (!url || url.protocol !== (this.secure ? 'https:' : 'http:')) return false;
    this.#redirected = new URL(url.origin);
    return true;
  }

  get secure(): boolean {
    return !this.#endpoint?.startsWith('http:');
  }

  /** Of the bucket's service, with the port where it is not the usual one. */
  get host(): string {
    return this.#origin().host;
  }

  target(key: string | undefined, query: Readonly<Record<string, string>> = {}): Target {
    const url = this.#origin();
    const path = this.#bucketInHost ? '' : `/${this.#place.bucket}`;
    return {
      secure: this.secure,
      // As a socket takes it: an address of IPv6 without brackets.
      hostname: url.hostname.replace(/^\[(.*)\]$/, '$1'),
      port: Number(url.port) || (this.secure ? 443 : 80),
      host: url.host,
      path: `${path}${this.#object(key)}${queryText(query)}`,
    };
  }

  #origin(): URL {
    if (this.#redirected) return this.#redirected;
    const url = new URL(this.#endpoint ?? `https://${serviceHost(this.#region)}`);
    if (this.#bucketInHost) url.hostname = `${this.#place.bucket}.${url.hostname}`;
    return url;
  }

  /** The whole name of an object in the bucket. */
  fullKey(key: string): string {
    return this.#place.prefix ? `${this.#place.prefix}/${key}` : key;
  }

  #object(key: string | undefined): string {
    if (key === undefined) return '/';
    return `/${this.fullKey(key).split('/').map(encoded).join('/')}`;
  }

  /** A certificate for *.s3… does not hold for names with a dot before it. */
  get #bucketInHost(): boolean {
    const { bucket, style = this.#endpoint === undefined ? 'virtual' : 'path' } = this.#place;
    return style === 'virtual' && (this.#endpoint !== undefined || !bucket.includes('.'));
  }
}

function serviceHost(region: string): string {
  return `s3.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`;
}

/** All but the unreserved characters, which is what signatures are made over. */
export function encoded(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function queryText(query: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(query).map(([name, value]) => `${encoded(name)}=${encoded(value)}`);
  return pairs.length > 0 ? `?${pairs.join('&')}` : '';
}
