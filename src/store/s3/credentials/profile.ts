import { StoreAccessError } from '../../../errors.js';
import { fromContainer } from './container.js';
import { fromInstanceMetadata, knock } from './instance-metadata.js';
import { fromProcess } from './process.js';
import { readSharedFiles, type Settings, type SharedFiles } from './profile-file.js';
import { type Credentials, type Origin, PROVIDERS, type Surroundings } from './source.js';
import { assumeRole, assumeRoleWithWebIdentity, type StsEndpoint, stsEndpoint } from './sts.js';

/** Settings of profiles that sign in by a browser, and which of the AWS SDK's providers knows how. */
const OF_THE_SDK = {
  sso_session: 'fromSSO',
  sso_start_url: 'fromSSO',
  login_session: 'fromLoginCredentials',
} as const;

type Provider = (options: object) => () => Promise<Credentials>;

/** The profile that counts, and whether somebody named it. */
export function profileName({ place, env }: Surroundings): { name: string; named: boolean } {
  const given = place.profile ?? (env.AWS_PROFILE || env.AWS_DEFAULT_PROFILE || undefined);
  return { name: given ?? 'default', named: given !== undefined };
}

/**
 * Undefined where the profile says nothing of credentials, such as one that has only a region.
 * @throws StoreAccessError where a profile that was named is not there
 */
export async function originOfProfile(around: Surroundings): Promise<Origin | undefined> {
  const { name, named } = profileName(around);
  const files = await readSharedFiles(around);
  if (!named && !files.profiles.has(name)) return undefined;
  return new Profiles(around, files).origin(name, []);
}

/** A setting of the profile that counts, such as its region. */
export async function settingOfProfile(
  around: Surroundings,
  setting: string,
): Promise<string | undefined> {
  const { profiles } = await readSharedFiles(around);
  return profiles.get(profileName(around).name)?.get(setting) || undefined;
}

/**
 * The endpoint of a service that is configured: by the environment before the profile, and for the
 * service before all services.
 */
export async function configuredEndpoint(
  around: Surroundings,
  service: Service,
): Promise<string | undefined> {
  const ofEnv = endpointIn(around.env, service);
  if (ofEnv !== undefined || isIgnored(around.env)) return ofEnv;
  const files = await readSharedFiles(around);
  const settings = files.profiles.get(profileName(around).name);
  return settings && endpointInProfile(files, settings, service);
}

type Service = 's3' | 'sts';

function endpointIn(env: Surroundings['env'], service: Service): string | undefined {
  if (isIgnored(env)) return undefined;
  return env[`AWS_ENDPOINT_URL_${service.toUpperCase()}`] || env.AWS_ENDPOINT_URL || undefined;
}

function isIgnored(env: Surroundings['env']): boolean {
  return env.AWS_IGNORE_CONFIGURED_ENDPOINT_URLS?.toLowerCase() === 'true';
}

function endpointInProfile(
  { services }: SharedFiles,
  settings: Settings,
  service: Service,
): string | undefined {
  if (settings.get('ignore_configured_endpoint_urls')?.toLowerCase() === 'true') return undefined;
  const own = services.get(settings.get('services') ?? '')?.get(`${service}.endpoint_url`);
  return own || settings.get('endpoint_url') || undefined;
}

class Profiles {
  readonly #around: Surroundings;
  readonly #files: SharedFiles;

  constructor(around: Surroundings, files: SharedFiles) {
    this.#around = around;
    this.#files = files;
  }

  /** @param over the profiles whose roles are assumed from this one, to find circles */
  origin(name: string, over: readonly string[]): Origin | undefined {
    const settings = this.#files.profiles.get(name);
    if (!settings) {
      throw refused(name, `is in none of ${this.#files.paths.join(' and ')}`);
    }
    // A profile may name itself as the source of its role: then its own keys are meant.
    if (over.includes(name) && !(over.at(-1) === name && settings.has('aws_access_key_id'))) {
      throw refused(name, `takes its role from itself, by ${[...over, name].join(', ')}`);
    }
    const role = settings.get('role_arn');
    const tokenFile = settings.get('web_identity_token_file');
    if (role && tokenFile) return () => this.#byWebIdentity(settings, role, tokenFile);
    if (role && !over.includes(name)) return this.#byRole(name, settings, role, over);
    if (settings.has('aws_access_key_id') || settings.has('aws_secret_access_key')) {
      return async () => keysOf(name, settings);
    }
    const command = settings.get('credential_process');
    if (command) return () => fromProcess(command, name, this.#around.env);
    for (const [setting, provider] of Object.entries(OF_THE_SDK)) {
      if (settings.get(setting)) return () => this.#bySdk(name, provider);
    }
    if (over.length > 0) throw refused(name, 'has no credentials in it');
    return undefined;
  }

  #byRole(name: string, settings: Settings, arn: string, over: readonly string[]): Origin {
    if (settings.get('mfa_serial')) {
      throw refused(name, 'wants a code of a device (mfa_serial), and nobody is there to give one');
    }
    const origin = this.#sourceOf(name, settings, over);
    const duration = settings.get('duration_seconds');
    const role = {
      arn,
      sessionName: settings.get('role_session_name') || this.#around.env.AWS_ROLE_SESSION_NAME,
      externalId: settings.get('external_id'),
      durationSeconds: duration,
    };
    return async () => assumeRole(this.#around, this.#endpoint(settings), role, await origin());
  }

  #sourceOf(name: string, settings: Settings, over: readonly string[]): Origin {
    const profile = settings.get('source_profile');
    const source = settings.get('credential_source');
    if (profile && source) {
      throw refused(name, 'has both source_profile and credential_source');
    }
    if (profile) return this.origin(profile, [...over, name]) as Origin;
    switch (source) {
      case 'Environment':
        return async () => keysOfEnvironment(this.#around);
      case 'Ec2InstanceMetadata':
        return async () => fromInstanceMetadata(this.#around, await knock(this.#around));
      case 'EcsContainer':
        return () => fromContainer(this.#around);
      default:
        throw refused(name, 'has a role_arn, but no source_profile and no credential_source');
    }
  }

  #byWebIdentity(settings: Settings, arn: string, tokenFile: string): Promise<Credentials> {
    const sessionName = settings.get('role_session_name');
    const durationSeconds = settings.get('duration_seconds');
    return assumeRoleWithWebIdentity(
      this.#around,
      this.#endpoint(settings),
      { arn, sessionName, durationSeconds },
      tokenFile,
    );
  }

  #endpoint(settings: Settings): StsEndpoint {
    return endpointFor(
      this.#around,
      settings.get('region'),
      endpointInProfile(this.#files, settings, 'sts'),
    );
  }

  async #bySdk(name: string, provider: string): Promise<Credentials> {
    const [configFilepath, filepath] = this.#files.paths;
    const providers = (await this.#around.importProviders().catch((cause) => {
      if (cause?.code !== 'ERR_MODULE_NOT_FOUND' && cause?.code !== 'MODULE_NOT_FOUND') throw cause;
      throw new StoreAccessError(
        `the profile "${name}" signs in as only the AWS SDK does (SSO and the like)`,
        { cause, hint: `Install the package ${PROVIDERS} beside walkeep.` },
      );
    })) as Record<string, Provider>;
    const from = providers[provider];
    if (!from) {
      throw new StoreAccessError(`the profile "${name}" wants ${provider} of ${PROVIDERS}`, {
        hint: 'Install a newer version of the package.',
      });
    }
    try {
      const { accessKeyId, secretAccessKey, sessionToken, expiration } = await from({
        profile: name,
        configFilepath,
        filepath,
      })();
      return {
        accessKeyId,
        secretAccessKey,
        ...(sessionToken && { sessionToken }),
        ...(expiration && { expiration }),
      };
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new StoreAccessError(`the profile "${name}" gives no credentials: ${why}`, {
        cause,
        hint: 'Sign in again, as with "aws sso login".',
      });
    }
  }
}

/** Where STS is asked: the environment counts before the files. */
export function endpointFor(
  { env, place }: Surroundings,
  regionOfProfile?: string,
  endpointOfProfile?: string,
): StsEndpoint {
  const configured = endpointIn(env, 'sts') ?? (isIgnored(env) ? undefined : endpointOfProfile);
  // The region of a place with an own endpoint is that service's, and may be no region of AWS.
  const region =
    env.AWS_REGION ||
    env.AWS_DEFAULT_REGION ||
    regionOfProfile ||
    (place.endpoint === undefined ? place.region : undefined);
  return stsEndpoint(configured, region);
}

function keysOf(name: string, settings: Settings): Credentials {
  const accessKeyId = settings.get('aws_access_key_id');
  const secretAccessKey = settings.get('aws_secret_access_key');
  if (!accessKeyId || !secretAccessKey) {
    throw refused(name, 'has only one of aws_access_key_id and aws_secret_access_key');
  }
  const sessionToken = settings.get('aws_session_token');
  return { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) };
}

export function keysOfEnvironment({ env }: Surroundings): Credentials {
  const accessKeyId = env.AWS_ACCESS_KEY_ID;
  const secretAccessKey = env.AWS_SECRET_ACCESS_KEY;
  if (!accessKeyId || !secretAccessKey) {
    throw new StoreAccessError(
      'the environment has only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
    );
  }
  const sessionToken = env.AWS_SESSION_TOKEN;
  return { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) };
}

function refused(name: string, why: string): StoreAccessError {
  return new StoreAccessError(`the profile "${name}" ${why}`);
}
