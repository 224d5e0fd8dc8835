import { StoreAccessError, StoreUncertainError } from '../../../errors.js';
import { credentialsOf, jsonOf } from './answer.js';
import { type Answer, ask } from './http.js';
import type { Credentials, Environment, Surroundings } from './source.js';

const WHAT = 'the metadata service of EC2';
const ROLES = '/latest/meta-data/iam/security-credentials/';
/** Six hours, the most there is; it is used for one visit. */
const TOKEN_SECONDS = '21600';

/** False where the user has switched the service off. */
export function metadataAllowed(env: Environment): boolean {
  return env.AWS_EC2_METADATA_DISABLED?.toLowerCase() !== 'true';
}

/**
 * The first question of a visit.
 * @throws StoreUncertainError where nobody answers at all, as on a machine that is none of EC2's
 */
export async function knock(around: Surroundings): Promise<Answer> {
  const { base, patience } = visit(around);
  try {
    return await ask(WHAT, {
      ...patience,
      url: new URL('/latest/api/token', base),
      method: 'PUT',
      headers: { 'x-aws-ec2-metadata-token-ttl-seconds': TOKEN_SECONDS },
      body: '',
    });
  } catch (error) {
    if (!(error instanceof StoreUncertainError)) throw error;
    throw new StoreUncertainError(error.message, {
      cause: error.cause,
      hint: "In a container on EC2 the instance's hop limit for its metadata must be 2 or more.",
    });
  }
}

/**
 * The credentials of an EC2 instance's role, by IMDSv2 alone: version 1 answers whoever makes this
 * machine ask a URL.
 * @param token what `knock` was answered
 */
export async function fromInstanceMetadata(
  around: Surroundings,
  token: Answer,
): Promise<Credentials> {
  const { base, patience } = visit(around);
  const headers = { 'x-aws-ec2-metadata-token': bodyOf(token, 'a token').trim() };
  const read = async (path: string, what: string) =>
    bodyOf(await ask(WHAT, { ...patience, url: new URL(path, base), headers }), what);
  const role = (await read(ROLES, 'the role of this instance')).split('\n')[0]?.trim() ?? '';
  if (!/^[\w+=,.@-]+$/.test(role)) throw new StoreUncertainError(`${WHAT} names no role`);
  const fields = jsonOf(await read(ROLES + role, `credentials of the role ${role}`));
  const code = (fields as { Code?: unknown } | undefined)?.Code;
  if (typeof code === 'string' && code !== 'Success') {
    throw new StoreUncertainError(`${WHAT} has no credentials for the role ${role}`, {
      detail: /^\w{1,80}$/.test(code) ? code : 'its code is no word',
    });
  }
  return credentialsOf(fields, WHAT);
}

function visit({ env }: Surroundings) {
  return {
    base: endpointOf(env),
    patience: {
      timeoutMs: Number(env.AWS_METADATA_SERVICE_TIMEOUT) * 1000 || 1000,
      tries: Number(env.AWS_METADATA_SERVICE_NUM_ATTEMPTS) || 2,
    },
  };
}

function endpointOf(env: Environment): string {
  const given = env.AWS_EC2_METADATA_SERVICE_ENDPOINT;
  if (!given) {
    const ipv6 = env.AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE?.toLowerCase() === 'ipv6';
    return ipv6 ? 'http://[fd00:ec2::254]' : 'http://169.254.169.254';
  }
  if (!URL.canParse(given) || !/^https?:$/.test(new URL(given).protocol)) {
    throw new StoreAccessError('AWS_EC2_METADATA_SERVICE_ENDPOINT is no http URL');
  }
  return given;
}

function bodyOf({ status, body }: Answer, what: string): string {
  if (status === 200) return body;
  const message = `${WHAT} answered ${status} when asked for ${what}`;
  if (status >= 500 || status === 429) throw new StoreUncertainError(message);
  throw new StoreAccessError(message, {
    ...(status === 404 && { hint: 'Give the instance a role, or name other credentials.' }),
  });
}
