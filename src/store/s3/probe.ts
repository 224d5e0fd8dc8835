import { randomUUID } from 'node:crypto';
import { StoreAccessError, StoreUncertainError, StoreUnsupportedError } from '../../errors.js';
import { contentOf } from '../content.js';
import type { Capabilities, ObjectStore } from '../store.js';
import { wordIn } from './answers.js';
import type { S3Client } from './client.js';

/** Creators of one key at the same time. */
const RACERS = 8;

type Probed = Pick<ObjectStore, 'create' | 'remove'>;

export async function probe(
  store: Probed,
  client: S3Client,
  signal: AbortSignal | undefined,
): Promise<Capabilities> {
  const conditionalCreate = await createsOnlyWhatIsAbsent(store, signal);
  const versioning = await versioningOf(client, signal);
  const lock = await lockOf(client, signal);
  const clockOffset = client.clockOffset;
  return {
    conditionalCreate,
    ...(versioning !== undefined && { versioning }),
    ...(lock !== undefined && { lock }),
    ...(clockOffset !== undefined && { clockOffset }),
  };
}

/** One key after the other, and another one at the same time: some services know only the former. */
async function createsOnlyWhatIsAbsent(
  store: Probed,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const [one, other] = [`probe/${randomUUID()}`, `probe/${randomUUID()}`];
  const create = async (key: string) => {
    const { created } = await store.create(key, contentOf(Buffer.from(randomUUID())), { signal });
    return created;
  };
  try {
    if (!(await create(one))) throw new StoreUncertainError(`"${one}" is already there`);
    if (await create(one)) return false;
    const raced = await Promise.all(Array.from({ length: RACERS }, () => create(other)));
    return raced.filter(Boolean).length === 1;
  } catch (error) {
    if (error instanceof StoreUnsupportedError) return false;
    throw error;
  } finally {
    await store.remove([one, other], { signal }).catch((error) => {
      // Who may only add cannot take them away again, and can still be told what the service does.
      if (!(error instanceof StoreAccessError)) throw error;
    });
  }
}

async function versioningOf(
  client: S3Client,
  signal: AbortSignal | undefined,
): Promise<boolean | undefined> {
  const { status, text } = await client.send(
    { method: 'GET', what: 'say whether it keeps versions', query: { versioning: '' } },
    signal,
  );
  if (status !== 200) return undefined;
  return (await wordIn(text, ['VersioningConfiguration', 'Status'])) === 'Enabled';
}

async function lockOf(
  client: S3Client,
  signal: AbortSignal | undefined,
): Promise<boolean | undefined> {
  const { status, code, text } = await client.send(
    { method: 'GET', what: 'say whether it locks objects', query: { 'object-lock': '' } },
    signal,
  );
  if (status === 404 && code === 'ObjectLockConfigurationNotFoundError') return false;
  if (status !== 200) return undefined;
  const mode = ['ObjectLockConfiguration', 'Rule', 'DefaultRetention', 'Mode'];
  return (await wordIn(text, mode)) !== undefined;
}
