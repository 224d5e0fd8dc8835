import { Cron } from 'croner';
import * as z from 'zod';
import { isLevelOf } from '../../codec/codecs.js';
import { inWords } from '../../text.js';
import { COMPRESSIONS } from '../../wal/file-name.js';

/** `gzip`, `gzip:6` */
export const COMPRESS = /^([a-z0-9]+)(?::(\d{1,3}))?$/;
/** `30s`, `26h`, `14d` */
export const DURATION = /^(\d{1,6})([smhdw])$/;
/** Milliseconds of each unit of a duration. */
export const UNITS: Readonly<Record<string, number>> = {
  ...{ s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 },
};
/** What is asked of a webhook, by kind of trouble. */
export const TROUBLES = [
  ...(['gap', 'rpo', 'receiver', 'slot', 'ship', 'verify', 'backup', 'expire'] as const),
  ...(['rehearse', 'reload'] as const),
] as const;
/** Jobs before and after which a command may be run. */
export const HOOKED = ['verify', 'backup', 'expire', 'rehearse'] as const;

export const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/, {
  error:
    'must be a name that begins with a letter or digit and has letters, digits, ".", "_" and "-" only, at most 63',
});

export const absolutePath = z
  .string()
  .min(1, { error: 'must not be empty' })
  .regex(/^\//, { error: 'must be an absolute path' });

export const duration = z.string().refine((text) => Number(DURATION.exec(text)?.[1]) > 0, {
  error: 'must be a time in s, m, h, d or w, such as 26h',
});

/** Milliseconds. */
export function durationMs(text: string): number {
  const [, digits, unit = ''] = DURATION.exec(text) ?? [];
  return Number(digits) * (UNITS[unit] as number);
}

const schedule = z.string().check((ctx) => {
  const fault = scheduleFault(ctx.value);
  if (fault !== undefined) {
    ctx.issues.push({ code: 'custom', message: fault, input: ctx.value });
  }
});

function scheduleFault(text: string): string | undefined {
  let next: Date | null;
  try {
    next = new Cron(text, { timezone: 'UTC', mode: '5-part', paused: true }).nextRun();
  } catch {
    return 'must be a time as cron has it: minute, hour, day, month and day of the week, such as "30 1 * * sun"';
  }
  return next === null ? 'never comes' : undefined;
}

function isStored(text: string): boolean {
  const [, codec, level] = COMPRESS.exec(text) ?? [];
  const method = COMPRESSIONS.find((one) => one === codec);
  return method !== undefined && (level === undefined || isLevelOf(method, Number(level)));
}

const compress = z.string().refine(isStored, {
  error: `must be ${inWords(COMPRESSIONS, 'or')}; a level stands behind it, as in zstd:3`,
});

export const store = z
  .strictObject({
    place: z
      .string()
      .min(1, { error: 'must not be empty' })
      .describe('URL of the store, or an absolute directory; of all servers together.'),
    access_key_file: absolutePath
      .optional()
      .describe('File with the access key of S3; its own ways to find one unless given.'),
    secret_key_file: absolutePath.optional().describe('File with the secret key of S3.'),
    compress: compress.optional().describe('How what is stored there is compressed.'),
    recipients: z
      .array(z.string().regex(/^age1[0-9a-z]+$/, { error: 'must be an age recipient, age1…' }))
      .min(1, { error: 'must name at least one recipient' })
      .optional()
      .describe('What is stored there is encrypted to all of these age recipients.'),
    identity_file: absolutePath
      .optional()
      .describe('age identities that open what is stored there: to verify, expire and rehearse.'),
  })
  .describe('A store that WAL is shipped to and backups are kept in.');

const retention = z
  .strictObject({
    window: duration.optional().describe('Every moment since then stays restorable.'),
    redundancy: z
      .int()
      .min(1, { error: 'must be at least 1' })
      .max(1_000_000, { error: 'must be at most 1000000' })
      .optional()
      .describe('So many full backups stay, and all that is newer than the oldest of them.'),
    at: schedule.optional().describe('When what is not needed any more is removed (UTC).'),
  })
  .refine(({ window, redundancy }) => window !== undefined || redundancy !== undefined, {
    error: 'needs a "window", a "redundancy" or both',
  })
  .describe('What stays; all else is removed.');

const serverStore = z
  .strictObject({
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/, {
        error: 'must be a path of letters, digits, ".", "_" and "-", without "/" around it',
      })
      .optional()
      .describe('Below the place of the store.'),
    ack: z
      .literal(false)
      .optional()
      .describe('A commit never waits for a store: what is on disk here is confirmed.'),
    retention: retention.optional(),
  })
  .describe('A store of this server.');

const verify = z
  .strictObject({
    quick: schedule.optional().describe('When names, sizes, headers and continuity are checked.'),
    full: schedule.optional().describe('When each record and each file of a backup is read.'),
  })
  .describe('When the archive is checked (UTC).');

const backup = z
  .strictObject({
    full: schedule.optional().describe('When a full backup is taken.'),
    differential: schedule
      .optional()
      .describe('When what changed since the last full backup is taken (PostgreSQL 17).'),
    incremental: schedule
      .optional()
      .describe('When what changed since the last backup is taken (PostgreSQL 17).'),
    max_age: duration.optional().describe('A newest backup that is older is an alarm.'),
    to: name.optional().describe('A store of this server, or "directory", which it is else.'),
    compress: compress.optional().describe('How a backup is compressed.'),
    verify_pages: z.boolean().optional().describe('Compare the checksums of all pages, too.'),
  })
  .describe('When backups are taken (UTC).');

const rehearse = z
  .strictObject({
    at: schedule.describe('When a restore is rehearsed (UTC).'),
    from: name.optional().describe('A store of this server, or "directory", which it is else.'),
    sql: z
      .array(z.string().min(1, { error: 'must not be empty' }))
      .optional()
      .describe('Queries that have to succeed, and not to say false.'),
    dbname: z.string().optional().describe('Database of them.'),
    scratch: absolutePath.optional().describe('Where the server is restored to for a while.'),
    pg_bin: absolutePath.optional().describe("Where the server's programs are."),
    timeout: duration.optional().describe('It is given up after so long.'),
  })
  .describe('A restore, done for proof and removed again.');

const command = z
  .array(z.string())
  .min(1, { error: 'must name a program' })
  .refine(([program]) => program?.startsWith('/') === true, {
    error: 'must begin with the absolute path of a program',
  });

const hooks = z
  .strictObject(
    Object.fromEntries(
      HOOKED.flatMap((job) => [
        [
          `before_${job}`,
          command.optional().describe('Program and arguments; no shell is used. Fails: no job.'),
        ],
        [`after_${job}`, command.optional().describe('Told by the environment how it ended.')],
      ]),
    ) as Record<`${'before' | 'after'}_${(typeof HOOKED)[number]}`, z.ZodOptional<typeof command>>,
  )
  .describe('Commands before and after jobs.');

/** What is done for a server beside receiving; a server's own replaces all of the default's. */
export const work = {
  rpo: duration.optional().describe('More that could be lost than this is an alarm.'),
  stores: z.record(name, serverStore).optional().describe('Where WAL is shipped to.'),
  verify: verify.optional(),
  backup: backup.optional(),
  retention: retention.optional(),
  rehearse: rehearse.optional(),
  hooks: hooks.optional(),
};

export const notify = z
  .strictObject({
    heartbeat: z
      .strictObject({
        url_file: absolutePath.describe('File that holds the URL, which is a secret.'),
        every: duration.optional().describe('How often.'),
      })
      .optional()
      .describe('Asked for while nothing more could be lost than "rpo" of each server allows.'),
    webhook: z
      .strictObject({
        url_file: absolutePath.describe('File that holds the URL, which is a secret.'),
        on: z
          .array(z.enum(TROUBLES))
          .min(1, { error: 'must name at least one' })
          .optional()
          .describe('What is told there; all unless given.'),
      })
      .optional()
      .describe('Gets a JSON object when something is wrong, and when it is well again.'),
  })
  .describe('Who is told.');
