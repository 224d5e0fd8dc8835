/** What `synchronous_standby_names` asks for (replication/syncrep_gram.y). */
export interface SyncStandbyNames {
  method: 'first' | 'any';
  /** How many standbys a commit waits for. */
  count: number;
  /** Names in order; `*` matches every standby. */
  names: string[];
}

/**
 * Reads the setting: `a, b`, `2 (a, b)`, `FIRST 2 (a, b)` or `ANY 2 (a, "b c")`. Undefined for an
 * empty setting, and for one that is not understood (a newer server may allow more).
 */
export function parseSyncStandbyNames(setting: string): SyncStandbyNames | undefined {
  const text = setting.trim();
  const m = /^(?:(first|any)\s+)?(\d+)\s*\((.*)\)$/is.exec(text);
  const names = splitNames(m ? (m[3] as string) : text);
  if (!names || names.length === 0) return undefined;
  return {
    method: m?.[1]?.toLowerCase() === 'any' ? 'any' : 'first',
    count: m ? Number(m[2]) : 1,
    names,
  };
}

function splitNames(list: string): string[] | undefined {
  const names: string[] = [];
  const item = /\s*(?:"((?:[^"]|"")+)"|([^\s",()]+))\s*(,|$)/gy;
  while (item.lastIndex < list.length) {
    const m = item.exec(list);
    if (!m) return undefined;
    names.push(m[1]?.replaceAll('""', '"') ?? (m[2] as string));
    if (m[3] === '') break;
  }
  return names;
}

/** True if a standby with this application_name is listed (pg_strcasecmp, or `*`). */
export function isListed(setting: SyncStandbyNames, applicationName: string): boolean {
  const name = applicationName.toLowerCase();
  return setting.names.some((n) => n === '*' || n.toLowerCase() === name);
}
