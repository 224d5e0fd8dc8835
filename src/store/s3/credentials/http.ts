import { type Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as pause } from 'node:timers/promises';
import { StoreAccessError, StoreUncertainError } from '../../../errors.js';
import type { ProxiedRequest } from '../proxy.js';
import { mayHaveProxy } from '../transport.js';
import type { Environment } from './source.js';

export interface Question {
  url: URL;
  method?: 'GET' | 'PUT' | 'POST';
  headers?: Record<string, string>;
  body?: string;
  /** For one try, to the last byte of its answer. */
  timeoutMs: number;
  /** More than one where the answer is a fault that passes. */
  tries?: number;
  /** Certificates in PEM that are trusted instead of the system's. */
  ca?: string | undefined;
  /** Whose HTTPS_PROXY, HTTP_PROXY and NO_PROXY count; without it no proxy does. */
  env?: Environment;
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/** Answers that hold credentials have 2 kB. */
const MOST_BYTES = 256 * 1024;
/** Before the second try; twice as long before each further one. */
const FIRST_PAUSE_MS = 100;

const passes = (status: number) => status >= 500 || status === 429;

/**
 * Asks an endpoint that gives credentials. Follows no redirection: where they come from is
 * configuration. Any status is an answer; what it means is the caller's affair.
 * @param what the endpoint's name for messages, such as "the container's credentials endpoint"
 * @throws StoreUncertainError where there is no whole answer, StoreAccessError for a certificate
 */
export async function ask(what: string, question: Question): Promise<Answer> {
  const tries = question.tries ?? 3;
  for (let n = 1; ; n++) {
    try {
      const answer = await once(question);
      if (!passes(answer.status) || n >= tries) return answer;
    } catch (cause) {
      if (cause instanceof StoreAccessError) throw cause;
      if (isCertificate(cause)) {
        throw new StoreAccessError(`the certificate of ${what} is not accepted`, {
          cause,
          hint: 'Name the file of its certificate authority in AWS_CA_BUNDLE.',
        });
      }
      if (n >= tries) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new StoreUncertainError(`${what} at ${question.url.host} gave no answer: ${why}`, {
          cause,
        });
      }
    }
    await pause(FIRST_PAUSE_MS * 2 ** (n - 1) * (0.5 + Math.random()));
  }
}

async function once(question: Question): Promise<Answer> {
  const way = await wayFor(question);
  return exchange(question, way).finally(() => way.agent?.destroy());
}

/** How an endpoint is reached; its agent is the question's own, to be let go of. */
interface Way {
  agent?: Agent;
  proxied?: ProxiedRequest;
}

async function wayFor({ url, env, ca }: Question): Promise<Way> {
  if (!env || !mayHaveProxy(env)) return {};
  const { proxyFor, putToProxy, TunnelAgent } = await import('../proxy.js');
  const secure = url.protocol === 'https:';
  const hostname = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const proxy = proxyFor({ secure, hostname, port: Number(url.port) || (secure ? 443 : 80) }, env);
  if (!proxy) return {};
  if (secure) return { agent: new TunnelAgent(proxy, ca === undefined ? {} : { ca }) };
  return { proxied: putToProxy(proxy, url.host, url.pathname + url.search) };
}

function exchange(question: Question, { agent, proxied }: Way): Promise<Answer> {
  const { url, method = 'GET', headers = {}, body, ca } = question;
  return new Promise((resolve, reject) => {
    const secure = proxied?.secure ?? url.protocol === 'https:';
    const request = (secure ? httpsRequest : httpRequest)(
      url,
      {
        method,
        agent: agent ?? false,
        ...(proxied && { hostname: proxied.hostname, port: proxied.port, path: proxied.path }),
        headers: {
          ...(proxied && { ...proxied.headers, host: url.host }),
          ...headers,
          ...(body !== undefined && { 'content-length': Buffer.byteLength(body) }),
        },
        ...(ca !== undefined && { ca }),
      },
      (response) => {
        const parts: Buffer[] = [];
        let size = 0;
        response.on('data', (part: Buffer) => {
          size += part.length;
          if (size > MOST_BYTES) request.destroy(new Error('its answer is too long'));
          else parts.push(part);
        });
        // Also where it ends before its time.
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(parts).toString('utf8');
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text });
        });
      },
    );
    const timer = setTimeout(
      () => request.destroy(new Error(`nothing within ${question.timeoutMs} ms`)),
      question.timeoutMs,
    );
    request.on('error', reject);
    request.on('close', () => clearTimeout(timer));
    request.end(body);
  });
}

function isCertificate(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? '';
  return /CERT|SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)|ERR_TLS_/.test(code);
}
