import { readFile } from 'node:fs/promises';
import { StoreAccessError, StoreUncertainError } from '../../../errors.js';
import { oneLine } from '../../../text.js';
import { readCertificates } from '../certificates.js';
import { credentialsOf } from './answer.js';
import { type Answer, ask } from './http.js';
import type { Credentials, Surroundings } from './source.js';

const WHAT = 'the token service (STS)';
/** A clock that differs more is refused by AWS. */
const SKEW_MS = 4 * 60_000;
/** Faults by which STS says that a later try can succeed. */
const PASSING = /Throttl|RequestLimit|IDPCommunicationError|ServiceUnavailable|InternalFailure/;

/** Where STS is asked. */
export interface StsEndpoint {
  url: URL;
  /** Signed for. */
  region: string;
}

export interface Role {
  arn: string;
  /** Names the session in the audit logs of AWS. */
  sessionName?: string | undefined;
  externalId?: string | undefined;
  durationSeconds?: string | undefined;
}

/**
 * @param given an endpoint that was configured
 * @param region of the profile or the environment; without one the global endpoint is asked
 */
export function stsEndpoint(given: string | undefined, region: string | undefined): StsEndpoint {
  if (given) {
    if (!URL.canParse(given) || !/^https?:$/.test(new URL(given).protocol)) {
      throw new StoreAccessError('the configured endpoint of STS is no http URL');
    }
    return { url: new URL(given), region: region ?? 'us-east-1' };
  }
  if (region === undefined) {
    return { url: new URL('https://sts.amazonaws.com/'), region: 'us-east-1' };
  }
  if (!/^[a-z0-9-]{1,40}$/.test(region)) {
    throw new StoreAccessError(`"${oneLine(region)}" is no region of AWS`);
  }
  return { url: new URL(`https://sts.${region}.${domainOf(region)}/`), region };
}

/** The partitions of AWS: each has a domain of its own. */
function domainOf(region: string): string {
  if (region.startsWith('cn-')) return 'amazonaws.com.cn';
  if (region.startsWith('eusc-')) return 'amazonaws.eu';
  if (region.startsWith('us-iso-')) return 'c2s.ic.gov';
  if (region.startsWith('us-isob-')) return 'sc2s.sgov.gov';
  if (region.startsWith('us-isof-')) return 'csp.hci.ic.gov';
  if (region.startsWith('eu-isoe-')) return 'cloud.adc-e.uk';
  return 'amazonaws.com';
}

/** A role for who has a token of an identity provider, such as a Kubernetes service account. */
export async function assumeRoleWithWebIdentity(
  around: Surroundings,
  endpoint: StsEndpoint,
  role: Role,
  tokenFile: string,
): Promise<Credentials> {
  // Read anew each time: Kubernetes exchanges the file.
  const token = (
    await readFile(tokenFile, 'utf8').catch((cause) => {
      throw new StoreAccessError(`cannot read the web identity token: ${cause.message}`, {
        path: tokenFile,
        cause,
      });
    })
  ).trim();
  const body = form('AssumeRoleWithWebIdentity', role, around, { WebIdentityToken: token });
  const answer = await post(around, endpoint, body, {});
  return credentialsIn(answer, role, [token]);
}

/** A role for who has credentials. */
export async function assumeRole(
  around: Surroundings,
  endpoint: StsEndpoint,
  role: Role,
  by: Credentials,
): Promise<Credentials> {
  const body = form('AssumeRole', role, around, {});
  let answer = await post(around, endpoint, body, await signed(endpoint, body, by, around.now()));
  const theirs = Date.parse(answer.headers.date ?? '');
  if (answer.status >= 400 && Math.abs(theirs - around.now()) > SKEW_MS) {
    answer = await post(around, endpoint, body, await signed(endpoint, body, by, theirs));
  }
  return credentialsIn(answer, role, [by.secretAccessKey, by.sessionToken]);
}

function form(
  action: string,
  role: Role,
  { now }: Surroundings,
  more: Record<string, string>,
): string {
  const { arn, externalId, durationSeconds } = role;
  const sessionName = role.sessionName || `walkeep-${now()}`;
  return new URLSearchParams({
    Action: action,
    Version: '2011-06-15',
    RoleArn: arn,
    RoleSessionName: sessionName,
    ...(externalId && { ExternalId: externalId }),
    ...(durationSeconds && { DurationSeconds: durationSeconds }),
    ...more,
  }).toString();
}

async function signed(
  { url, region }: StsEndpoint,
  body: string,
  by: Credentials,
  now: number,
): Promise<Record<string, string>> {
  const { default: aws4 } = await import('aws4');
  const date = new Date(now).toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const request = aws4.sign(
    {
      ...{ service: 'sts', region, method: 'POST', host: url.host, path: url.pathname, body },
      headers: { 'Content-Type': FORM, 'X-Amz-Date': date },
    },
    by,
  );
  return request.headers as Record<string, string>;
}

const FORM = 'application/x-www-form-urlencoded; charset=utf-8';

async function post(
  { env, timeoutMs }: Surroundings,
  { url }: StsEndpoint,
  body: string,
  headers: Record<string, string>,
): Promise<Answer> {
  const trusted = env.AWS_CA_BUNDLE;
  return ask(WHAT, {
    url,
    method: 'POST',
    body,
    timeoutMs,
    headers: { 'Content-Type': FORM, accept: 'text/xml', ...headers },
    ca: trusted && url.protocol === 'https:' ? readCertificates(trusted) : undefined,
    env,
  });
}

function credentialsIn(answer: Answer, role: Role, secrets: (string | undefined)[]): Credentials {
  const { status, body } = answer;
  if (status === 200) {
    const part = elementIn(body, 'Credentials') ?? '';
    const names = ['AccessKeyId', 'SecretAccessKey', 'SessionToken', 'Expiration'];
    return credentialsOf(
      Object.fromEntries(names.map((name) => [name, elementIn(part, name)])),
      WHAT,
    );
  }
  const code = elementIn(body, 'Code');
  const said = [code, elementIn(body, 'Message')].filter(Boolean).join(': ').slice(0, 500);
  // What a service says may quote what it was sent.
  const detail = secrets.reduce<string>((text, s) => (s ? text.replaceAll(s, '***') : text), said);
  const message = `${WHAT} answered ${status} when asked for the role ${oneLine(role.arn)}`;
  const details = detail === '' ? {} : { detail: oneLine(detail) };
  if (status >= 500 || status === 429 || PASSING.test(code ?? '')) {
    throw new StoreUncertainError(message, details);
  }
  throw new StoreAccessError(message, details);
}

/** The text of the first element of a name; the answers of STS have each only once. */
function elementIn(xml: string, name: string): string | undefined {
  const text = new RegExp(`<${name}>([^]*?)</${name}>`).exec(xml)?.[1];
  return text?.trim().replaceAll(/&(lt|gt|quot|apos|amp);/g, (_, it) => ENTITIES[it] as string);
}

const ENTITIES: Readonly<Record<string, string>> = {
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  amp: '&',
};
