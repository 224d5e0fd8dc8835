import { CorruptObjectError } from '../errors.js';
import { type Lsn, parseLsn } from '../lsn.js';

/** `backup_label` (access/transam/xlogbackup.c, build_backup_content): where recovery begins. */
export interface BackupLabel {
  /** REDO of the checkpoint that the backup begins with. */
  start: Lsn;
  /** 24 digits: the segment that `start` is in. */
  startSegment: string;
  checkpoint: Lsn;
  from: 'primary' | 'standby';
  timeline: number;
  /** In the server's time zone, as it wrote it. */
  startTime: string;
  label: string;
  /** Of an incremental backup: the start of the one it is based on. */
  incrementalFrom: { lsn: Lsn; timeline: number } | undefined;
}

/** @param name of the object, for messages. @throws CorruptObjectError */
export function parseBackupLabel(content: Buffer, name = 'backup_label'): BackupLabel {
  const text = content.toString('latin1');
  const wrong = (what: string) =>
    new CorruptObjectError(`"${name}" is no backup label: ${what}`, { key: name });
  const optional = (line: RegExp): string[] | undefined => {
    const all = [...text.matchAll(new RegExp(line, 'gm'))];
    if (all.length > 1) throw wrong(`more than one line ${line.source}`);
    return all[0]?.slice(1);
  };
  const required = (line: RegExp): string[] => {
    const found = optional(line);
    if (!found) throw wrong(`no line ${line.source}`);
    return found;
  };
  const lsn = (digits: string | undefined): Lsn => parseLsn(digits as string);
  const [start, startSegment = ''] = required(
    /^START WAL LOCATION: ([0-9A-F]+\/[0-9A-F]+) \(file ([0-9A-F]{24})\)$/,
  );
  const [checkpoint] = required(/^CHECKPOINT LOCATION: ([0-9A-F]+\/[0-9A-F]+)$/);
  required(/^BACKUP METHOD: (streamed)$/);
  const [from] = required(/^BACKUP FROM: (primary|standby)$/);
  const [startTime = ''] = required(/^START TIME: (.+)$/);
  const [label = ''] = required(/^LABEL: (.*)$/);
  const [timeline] = required(/^START TIMELINE: ([1-9]\d{0,9})$/);
  const [parent] = optional(/^INCREMENTAL FROM LSN: ([0-9A-F]+\/[0-9A-F]+)$/) ?? [];
  const [parentTimeline] = optional(/^INCREMENTAL FROM TLI: ([1-9]\d{0,9})$/) ?? [];
  if ((parent === undefined) !== (parentTimeline === undefined)) {
    throw wrong('half of what it is based on');
  }
  return {
    ...{ start: lsn(start), startSegment, checkpoint: lsn(checkpoint) },
    ...{ from: from as BackupLabel['from'], timeline: Number(timeline), startTime, label },
    incrementalFrom:
      parent === undefined ? undefined : { lsn: lsn(parent), timeline: Number(parentTimeline) },
  };
}

/** Of a full backup that an incremental one was made into: nothing says any more what it was based on. */
export function fullBackupLabel(content: Buffer): Buffer {
  const text = content.toString('latin1').replace(/^INCREMENTAL FROM (LSN|TLI): .*\n/gm, '');
  return Buffer.from(text, 'latin1');
}

/** One line of `tablespace_map`: the symbolic link `pg_tblspc/OID` and where it leads. */
export interface TablespaceLink {
  oid: number;
  /** Bytes in latin1. */
  path: string;
}

/**
 * `tablespace_map`: `OID path` lines, where a backslash stands before a line end, a carriage return
 * or a backslash that belongs to the path (basebackup.c, do_pg_backup_start).
 * @throws CorruptObjectError
 */
export function parseTablespaceMap(content: Buffer, name = 'tablespace_map'): TablespaceLink[] {
  const links: TablespaceLink[] = [];
  const text = content.toString('latin1');
  const line = /(\d+) ((?:[^\\\n\r]|\\[\s\S])+)\n/y;
  while (line.lastIndex < text.length) {
    const found = line.exec(text);
    if (!found) throw new CorruptObjectError(`"${name}" is no tablespace map`, { key: name });
    const path = (found[2] as string).replace(/\\([\s\S])/g, '$1');
    links.push({ oid: Number(found[1]), path });
  }
  return links;
}

/** The same as PostgreSQL reads it. */
export function tablespaceMap(links: readonly TablespaceLink[]): Buffer {
  const lines = links.map(({ oid, path }) => `${oid} ${path.replace(/[\\\n\r]/g, '\\$&')}\n`);
  return Buffer.from(lines.join(''), 'latin1');
}
