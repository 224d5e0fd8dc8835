import { createHash } from 'node:crypto';
import { AuthenticationError, ProtocolError } from '../errors.js';
import { serverEndPoint } from '../protocol/channel-binding.js';
import {
  encodePassword,
  encodeSaslInitial,
  encodeSaslResponse,
} from '../protocol/frontend-message.js';
import { type ChannelBinding, ScramClient } from '../protocol/scram.js';
import type { AuthMethod, ConnectionSettings } from './conninfo/settings.js';

/** AuthenticationXXX codes (AUTH_REQ_*, libpq/protocol.h). */
const AUTH = {
  ok: 0,
  cleartext: 3,
  md5: 5,
  gss: 7,
  gssContinue: 8,
  sspi: 9,
  sasl: 10,
  saslContinue: 11,
  saslFinal: 12,
} as const;

/** What the exchange needs to know about the channel it runs on. */
export interface AuthenticationContext {
  settings: Pick<ConnectionSettings, 'user' | 'channelBinding' | 'requireAuth'>;
  password: string | undefined;
  /** The server's certificate (DER) if the connection uses TLS. */
  certificate: Buffer | undefined;
  tls: boolean;
}

/**
 * Client side of the authentication exchange: `answer` each request of the server until it
 * returns `done`. Sends nothing that `require_auth` or `channel_binding` forbid.
 */
export class Authentication {
  private readonly context: AuthenticationContext;
  private scram: ScramClient | undefined;
  private passwordSent = false;

  constructor(context: AuthenticationContext) {
    this.context = context;
  }

  /**
   * The message to send for a request of this method with these bytes, undefined for none, or
   * `done` after AuthenticationOk. @throws AuthenticationError, ProtocolError
   */
  async answer(method: number, data: Buffer): Promise<Buffer | 'done' | undefined> {
    this.checkAllowed(method);
    switch (method) {
      case AUTH.ok:
        return 'done';
      case AUTH.cleartext:
        this.passwordSent = true;
        return encodePassword(this.password());
      case AUTH.md5:
        if (data.length !== 4) throw new ProtocolError('invalid MD5 authentication request');
        this.passwordSent = true;
        return encodePassword(md5Password(this.context.settings.user, this.password(), data));
      case AUTH.sasl:
        return this.startSasl(data);
      case AUTH.saslContinue:
        return encodeSaslResponse(await this.currentScram().respond(data.toString('utf8')));
      case AUTH.saslFinal:
        this.currentScram().verify(data.toString('utf8'));
        return undefined;
      case AUTH.gss:
      case AUTH.gssContinue:
        throw unsupported('GSSAPI authentication not supported');
      case AUTH.sspi:
        throw unsupported('SSPI authentication not supported');
      default:
        throw unsupported(`authentication method ${method} not supported`);
    }
  }

  private password(): string {
    const { password } = this.context;
    if (password === undefined || password === '') {
      throw new AuthenticationError('fe_sendauth: no password supplied', { needsPassword: true });
    }
    return password;
  }

  private currentScram(): ScramClient {
    if (this.scram) return this.scram;
    throw new ProtocolError(
      'invalid authentication request from server: AUTH_REQ_SASL_CONT without AUTH_REQ_SASL',
    );
  }

  private startSasl(data: Buffer): Buffer {
    const { tls, certificate, settings } = this.context;
    const { channelBinding } = settings;
    if (this.scram) throw new ProtocolError('duplicate SASL authentication request');
    if (channelBinding === 'require' && !tls) {
      throw new AuthenticationError('channel binding required, but SSL not in use');
    }
    const offered = data.toString('latin1').split('\0');
    let binding: ChannelBinding | undefined;
    if (offered.includes('SCRAM-SHA-256-PLUS')) {
      if (!tls) {
        // A server offers it only under TLS: somebody in between took the TLS away.
        throw new AuthenticationError(
          'server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection',
        );
      }
      if (channelBinding !== 'disable' && certificate) {
        binding = { endPoint: serverEndPoint(certificate) };
      }
    }
    if (!binding && channelBinding === 'require') {
      throw new AuthenticationError(
        'channel binding is required, but server did not offer an authentication method that supports channel binding',
      );
    }
    if (!binding && offered.includes('SCRAM-SHA-256')) {
      // 'unused' lets the server notice that somebody removed PLUS from its offer.
      binding = tls && channelBinding !== 'disable' ? 'unused' : 'none';
    }
    if (!binding) {
      throw unsupported("none of the server's SASL authentication mechanisms are supported");
    }
    this.scram = new ScramClient(this.password(), binding);
    return encodeSaslInitial(this.scram.mechanism, this.scram.firstMessage);
  }

  /** libpq's check_expected_areq: before anything secret is sent, and again at the end. */
  private checkAllowed(method: number): void {
    const { requireAuth, channelBinding } = this.context.settings;
    if (requireAuth) {
      const finished = this.passwordSent || this.scram?.finished === true;
      const name: AuthMethod | undefined =
        method === AUTH.ok && finished ? undefined : METHOD_NAMES[method];
      const listed = name !== undefined && requireAuth.methods.includes(name);
      if (name !== undefined && listed === requireAuth.negated) {
        const list = requireAuth.methods.map((m) => (requireAuth.negated ? `!${m}` : m));
        throw new AuthenticationError(
          `authentication method requirement "${list.join(',')}" failed: ${describe(method)}`,
        );
      }
    }
    if (method === AUTH.ok && this.scram && !this.scram.finished) {
      // libpq tolerates this without require_auth; a server that skips its proof is not the server.
      throw new AuthenticationError('server did not complete authentication');
    }
    if (channelBinding !== 'require') return;
    if (method === AUTH.ok && !this.scram?.channelBound) {
      throw new AuthenticationError(
        'channel binding required, but server authenticated client without channel binding',
      );
    }
    if (method < AUTH.sasl && method !== AUTH.ok) {
      throw new AuthenticationError(
        "channel binding required but not supported by server's authentication request",
      );
    }
  }
}

const METHOD_NAMES: Readonly<Record<number, AuthMethod>> = {
  [AUTH.ok]: 'none',
  [AUTH.cleartext]: 'password',
  [AUTH.md5]: 'md5',
  [AUTH.gss]: 'gss',
  [AUTH.gssContinue]: 'gss',
  [AUTH.sspi]: 'sspi',
  [AUTH.sasl]: 'scram-sha-256',
  [AUTH.saslContinue]: 'scram-sha-256',
  [AUTH.saslFinal]: 'scram-sha-256',
};

function describe(method: number): string {
  switch (METHOD_NAMES[method]) {
    case 'none':
      return 'server did not complete authentication';
    case 'password':
      return 'server requested a cleartext password';
    case 'md5':
      return 'server requested a hashed password';
    case 'gss':
      return 'server requested GSSAPI authentication';
    case 'sspi':
      return 'server requested SSPI authentication';
    case 'scram-sha-256':
      return 'server requested SASL authentication';
    default:
      return 'server requested an unknown authentication type';
  }
}

function unsupported(message: string): AuthenticationError {
  return new AuthenticationError(message, {
    hint: 'Supported are trust, password, md5, scram-sha-256 and cert.',
  });
}

/** "md5" + md5(md5(password + user) + salt), hex (protocol.sgml, AuthenticationMD5Password). */
function md5Password(user: string, password: string, salt: Buffer): string {
  const inner = createHash('md5').update(`${password}${user}`).digest('hex');
  return `md5${createHash('md5').update(inner).update(salt).digest('hex')}`;
}
