import { StoreAccessError, StoreUncertainError } from '../../../errors.js';
import { parseEndpoint, type S3Place } from '../../place.js';
import { fromContainer, hasContainerEndpoint } from './container.js';
import { fromInstanceMetadata, knock, metadataAllowed } from './instance-metadata.js';
import {
  configuredEndpoint,
  endpointFor,
  keysOfEnvironment,
  originOfProfile,
  settingOfProfile,
} from './profile.js';
import { RenewedCredentials } from './renewed.js';
import {
  type CredentialSource,
  type Credentials,
  type Environment,
  type Origin,
  type Surroundings,
  type SurroundingsOptions,
  surroundings,
} from './source.js';
import { assumeRoleWithWebIdentity } from './sts.js';

export type { CredentialSource, Credentials } from './source.js';

/**
 * The credentials of a place, from where AWS's tools look for them and in their order. The first
 * that is configured counts: where it fails nothing else is tried, since that would be somebody
 * else's rights. Nothing is asked before the first `get`.
 */
export function resolveCredentials(
  place: S3Place,
  env: Environment,
  options: SurroundingsOptions = {},
): CredentialSource {
  const around = surroundings(place, env, options);
  let hadInstance = false;
  const find = async (): Promise<Credentials> => {
    const origin = await configured(around);
    if (origin) return origin();
    if (!metadataAllowed(env)) throw none();
    // The last resort, and on a machine that is none of EC2's there is nobody to answer.
    const token = await knock(around).catch((error) => {
      throw error instanceof StoreUncertainError && !hadInstance ? none(error) : error;
    });
    // Other clouds have a service at the same address, which knows no such question.
    if (token.status >= 400 && token.status < 500 && !hadInstance) {
      throw none(new StoreUncertainError(`the metadata service answered ${token.status}`));
    }
    const credentials = await fromInstanceMetadata(around, token);
    hadInstance = true;
    return credentials;
  };
  return credentialsFrom(find, around.now);
}

/** Those of an origin of another kind. */
export function credentialsFrom(origin: Origin, now?: () => number): CredentialSource {
  return new RenewedCredentials(async () => usable(await origin()), now);
}

/**
 * They go into headers, and come from files and variables that may have brought a line end with them.
 * What is wrong is not quoted. @throws StoreAccessError
 */
function usable(credentials: Credentials): Credentials {
  const { accessKeyId, secretAccessKey, sessionToken = 'none' } = credentials;
  const parts = { 'access key ID': accessKeyId, 'secret access key': secretAccessKey };
  for (const [what, value] of Object.entries({ ...parts, 'session token': sessionToken })) {
    if (/^[!-~]([ -~]*[!-~])?$/.test(value)) continue;
    throw new StoreAccessError(`the ${what} has a character in it that none has`, {
      hint: 'See whether a blank or a line end stands before or behind it.',
    });
  }
  return credentials;
}

/** Where a place's bucket is, as far as anything says that; what the place itself says counts first. */
export async function resolveSettings(
  place: S3Place,
  env: Environment,
  options: SurroundingsOptions = {},
): Promise<{ region: string | undefined; endpoint: string | undefined }> {
  const region = await resolveRegion(place, env, options);
  if (place.endpoint !== undefined) return { region, endpoint: place.endpoint };
  const configured = await configuredEndpoint(surroundings(place, env, options), 's3');
  if (configured === undefined) return { region, endpoint: undefined };
  const endpoint = parseEndpoint(configured);
  if (endpoint !== undefined) return { region, endpoint };
  throw new StoreAccessError('the configured endpoint of S3 is not http://host:port', {
    hint: 'See AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and endpoint_url of the profile.',
  });
}

/** The region that requests to a place are signed for, where anything says one. */
export async function resolveRegion(
  place: S3Place,
  env: Environment,
  options: SurroundingsOptions = {},
): Promise<string | undefined> {
  const given = place.region ?? (env.AWS_REGION || env.AWS_DEFAULT_REGION || undefined);
  return given ?? settingOfProfile(surroundings(place, env, options), 'region');
}

async function configured(around: Surroundings): Promise<Origin | undefined> {
  const { env, place } = around;
  // A profile in the place was asked for by who wrote the place; the environment is everybody's.
  if (place.profile === undefined && (env.AWS_ACCESS_KEY_ID || env.AWS_SECRET_ACCESS_KEY)) {
    return async () => keysOfEnvironment(around);
  }
  const ofProfile = await originOfProfile(around);
  if (ofProfile) return ofProfile;
  const tokenFile = env.AWS_WEB_IDENTITY_TOKEN_FILE;
  const arn = env.AWS_ROLE_ARN;
  if (tokenFile && arn) {
    const role = { arn, sessionName: env.AWS_ROLE_SESSION_NAME || undefined };
    return () => assumeRoleWithWebIdentity(around, endpointFor(around), role, tokenFile);
  }
  if (hasContainerEndpoint(around.env)) return () => fromContainer(around);
  return undefined;
}

function none(cause?: StoreUncertainError): StoreAccessError {
  return new StoreAccessError('there are no credentials for the object store', {
    hint: 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile, or give this machine a role.',
    ...(cause && { cause, detail: cause.message }),
  });
}
