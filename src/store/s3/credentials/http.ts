import { type Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as pause } from 'node:timers/promises';
import { StoreAccessError, StoreUncertainError } from '../../../errors.js';
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
  /** Whose HTTPS_PROXY and NO_PROXY count; without it no proxy does. */
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
  const agent = await agentFor(question);
  return exchange(question, agent).finally(() => agent?.destroy());
}

/** One of the question's own, to be let go of; undefined: no proxy is on the way. */
async function agentFor({ url, env, ca }: Question): Promise<Agent | undefined> {
  if (url.protocol !== 'https:' || !(env?.https_proxy || env?.HTTPS_PROXY)) return undefined;
  const { proxyFor, TunnelAgent } = await import('../proxy.js');
  const proxy = proxyFor(url.hostname, Number(url.port || 443), env);
  return proxy && new TunnelAgent(proxy, ca === undefined ? {} : { ca });
}

function exchange(question: Question, agent: Agent | undefined): Promise<Answer> {
  const { url, method = 'GET', headers = {}, body, ca } = question;
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(
      url,
      {
        method,
        agent: agent ?? false,
        headers: {
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
