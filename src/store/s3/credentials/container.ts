import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { StoreAccessError, StoreUncertainError } from '../../../errors.js';
import { credentialsInJson } from './answer.js';
import { ask } from './http.js';
import type { Credentials, Environment, Surroundings } from './source.js';

const WHAT = "the container's credentials endpoint";
/** Of ECS, and of EKS's Pod Identity Agent. */
const KNOWN_HOSTS = new Set(['169.254.170.2', '169.254.170.23', '[fd00:ec2::23]']);

/** True where the container's surroundings name an endpoint. */
export function hasContainerEndpoint(env: Environment): boolean {
  return Boolean(
    env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI || env.AWS_CONTAINER_CREDENTIALS_FULL_URI,
  );
}

/** The credentials of an ECS task or of a pod with EKS Pod Identity. */
export async function fromContainer(around: Surroundings): Promise<Credentials> {
  const url = endpointOf(around);
  const authorization = await tokenOf(around.env);
  const { status, body } = await ask(WHAT, {
    url,
    timeoutMs: around.timeoutMs,
    headers: { accept: 'application/json', ...(authorization && { authorization }) },
  });
  if (status === 200) return credentialsInJson(body, WHAT);
  const message = `${WHAT} at ${url.host} answered ${status}`;
  if (status >= 500 || status === 429) throw new StoreUncertainError(message);
  throw new StoreAccessError(message, { hint: 'See whether the task or the pod has a role.' });
}

/** The token goes there: it must be this machine, the two hosts of AWS, or under TLS. */
function endpointOf({ env, containerOrigin }: Surroundings): URL {
  const relative = env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI;
  const name = `AWS_CONTAINER_CREDENTIALS_${relative ? 'RELATIVE' : 'FULL'}_URI`;
  const text = relative ? containerOrigin + relative : env.AWS_CONTAINER_CREDENTIALS_FULL_URI;
  if (text === undefined || !URL.canParse(text) || (relative && !relative.startsWith('/'))) {
    throw new StoreAccessError(`${name} is no URL`);
  }
  const url = new URL(text);
  if (relative ? url.origin === containerOrigin : isAllowed(url)) return url;
  throw new StoreAccessError(`${name} names the host ${url.host}, which is not allowed`, {
    hint: 'It must be https, or http to this machine, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23].',
  });
}

function isAllowed({ protocol, hostname }: URL): boolean {
  if (protocol === 'https:') return true;
  if (protocol !== 'http:') return false;
  if (KNOWN_HOSTS.has(hostname) || hostname === 'localhost' || hostname === '[::1]') return true;
  // URLs have IPv4 addresses in one form only.
  return isIP(hostname) === 4 && hostname.startsWith('127.');
}

/** Read anew each time: Kubernetes exchanges the file. */
async function tokenOf(env: Environment): Promise<string | undefined> {
  const file = env.AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE;
  const token = file
    ? await readFile(file, 'utf8').catch((cause) => {
        throw new StoreAccessError(`cannot read the container's token: ${cause.message}`, {
          path: file,
          cause,
        });
      })
    : env.AWS_CONTAINER_AUTHORIZATION_TOKEN;
  if (!token) return undefined;
  const bare = token.trim();
  if (/[^\x20-\x7e]/.test(bare)) {
    throw new StoreAccessError("the container's token is not one line of printable characters");
  }
  return bare;
}
