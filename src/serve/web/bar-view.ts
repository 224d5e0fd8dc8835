import type { ServerStatus } from '../status.js';
import { type Bar, barOf, type Mark, type Segment, type SegmentKind } from './bar.js';
import { type Content, type Html, html, joined } from './html.js';
import { clock, span, utc } from './times.js';

/** Where things stand in the drawing, from its top; the width is whatever the page has. */
const BAR = { y: 20, height: 22 } as const;
const HEIGHT = 66;
/** Of the bar's range: so finely time goes on in the drawing. */
const STEPS = 4000;

const NAMES: Readonly<Record<SegmentKind, string>> = {
  window: 'Restorable',
  live: 'Restorable, received since the archive was looked at',
  beside: 'Restorable on a timeline that is not followed',
  wal: 'WAL without a usable backup before it',
  gap: 'WAL is missing',
  behind: 'Not durable here',
};

/** Patterns of the drawings, once a page. */
export const PATTERNS: Html = html`<svg class="patterns" width="0" height="0" aria-hidden="true" focusable="false"><defs>
<pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse"><path class="p-wal" d="M-1 7L7 -1M-1 1L1 -1M5 7L7 5"/></pattern>
<pattern id="crossed" width="8" height="8" patternUnits="userSpaceOnUse"><rect class="p-gap" width="8" height="8"/><path class="p-cross" d="M0 0L8 8M8 0L0 8"/></pattern>
<pattern id="crossed-accepted" width="8" height="8" patternUnits="userSpaceOnUse"><path class="p-accepted" d="M0 0L8 8M8 0L0 8"/></pattern>
<pattern id="dotted" width="6" height="6" patternUnits="userSpaceOnUse"><circle class="p-behind" cx="3" cy="3" r="1.2"/></pattern>
</defs></svg>`;

const FILLS: Readonly<Partial<Record<SegmentKind, string>>> = {
  ...{ wal: 'url(#hatched)', gap: 'url(#crossed)', behind: 'url(#dotted)' },
};

/** What the drawing means, beside it for everybody. */
export const LEGEND: Html = html`<ul class="legend">
${joined(
  (
    [
      ['window', 'restorable'],
      ['beside', 'restorable on another timeline'],
      ['wal', 'WAL, no usable backup before it'],
      ['gap', 'WAL is missing'],
      ['behind', 'not durable here'],
    ] as const
  ).map(
    ([kind, text]) =>
      html`<li><svg width="22" height="12" aria-hidden="true" focusable="false"><rect class="seg ${kind}" width="22" height="12" fill="${FILLS[kind] ?? ''}"/></svg>${text}</li>`,
  ),
)}
<li><svg width="10" height="12" aria-hidden="true" focusable="false"><path class="mark backup" d="M5 11L1 3H9Z"/></svg>full backup</li>
<li><svg width="10" height="12" aria-hidden="true" focusable="false"><path class="mark backup part" d="M5 11L1.8 4.6H8.2Z"/></svg>incremental</li>
<li><svg width="12" height="12" aria-hidden="true" focusable="false"><path class="mark fork" d="M6 1L11 6L6 11L1 6Z"/></svg>new timeline</li>
</ul>`;

/** The recoverability bar of a server, with its text for who does not see it. */
export function barView(server: ServerStatus, now: number): Html {
  const { archive } = server;
  if (archive?.readAt === undefined) {
    return html`<p class="empty">The archive has not been looked at yet.</p>`;
  }
  // Time goes on by parts of a pixel: the drawing changes when it looks different.
  const rough = barOf(server, now);
  const step = rough ? Math.max(1, (rough.to - rough.from) / STEPS) : 1;
  const bar = rough && barOf(server, Math.ceil(now / step) * step);
  if (!bar) return html`<p class="empty">The archive is empty: nothing can be restored yet.</p>`;
  return html`<svg class="bar" role="img" width="100%" height="${HEIGHT}" focusable="false" aria-label="${described(server, bar)}">
<rect class="ground" x="0" y="${BAR.y}" width="100%" height="${BAR.height}" rx="3"/>
${joined(bar.segments.map(segmentView))}
${joined(bar.ticks.map(({ x, label, minor }) => html`<g class="tick ${minor && 'minor'}"><line x1="${percent(x)}" x2="${percent(x)}" y1="${BAR.y + BAR.height}" y2="${BAR.y + BAR.height + 5}"/><text x="${percent(x)}" y="${HEIGHT - 6}" text-anchor="middle">${label}</text></g>`))}
<text class="end" x="100%" y="${HEIGHT - 6}" text-anchor="end">now</text>
<line class="now" x1="100%" x2="100%" y1="${BAR.y - 4}" y2="${BAR.y + BAR.height + 6}"/>
${joined(bar.marks.map(markView))}
</svg>`;
}

function segmentView({ kind, x0, x1, from, to, accepted, gaps = 1 }: Segment): Content {
  const grown = kind === 'gap' ? 4 : 0;
  const name = kind === 'gap' && accepted ? 'WAL is missing (accepted)' : NAMES[kind];
  const many = gaps > 1 ? `${gaps} gaps: ` : '';
  const fill = kind === 'gap' && accepted ? 'url(#crossed-accepted)' : FILLS[kind];
  return html`<rect class="seg ${kind} ${accepted && 'accepted'}" x="${percent(x0)}" y="${BAR.y - grown}" width="${percent(x1 - x0)}" height="${BAR.height + 2 * grown}"${fill && html` fill="${fill}"`}><title>${many}${name}
${utc(from)} – ${utc(to)}</title></rect>`;
}

/** A symbol of fixed size at a place in percent: an inner drawing, since a path knows no percent. */
function markView({ kind, x, at, label, usable, full }: Mark): Content {
  const what = kind === 'fork' ? 'New timeline' : full ? 'Full backup' : 'Incremental backup';
  const path =
    kind === 'fork' ? 'M0 -6L6 0L0 6L-6 0Z' : full ? 'M0 0L-4.5 -9H4.5Z' : 'M0 0L-3.2 -6.4H3.2Z';
  const y = kind === 'fork' ? BAR.y + BAR.height / 2 : BAR.y - 2;
  return html`<svg x="${percent(x)}" y="${y}" overflow="visible"><path class="mark ${kind} ${!full && 'part'} ${!usable && 'useless'}" d="${path}"><title>${what} ${label}${usable ? '' : ': nothing can be restored from it'}
${utc(at)}</title></path></svg>`;
}

const percent = (x: number): string => `${+(x * 100).toFixed(3)}%`;

/** So many are read out; all are in the tables of the server's page. */
const MOST_READ = 4;

function described({ name, archive }: ServerStatus, bar: Bar): string {
  const { windows = [], gaps = [] } = archive ?? {};
  const live = bar.segments.findLast(({ kind }) => kind === 'live');
  const minute = (at: number) => utc(at).replace(/:\d\d UTC$/, ' UTC');
  const ranges = windows.slice(-MOST_READ).map(({ from, to }, i, shown) => {
    const end = live && i === shown.length - 1 ? live.to : Date.parse(to);
    return `${minute(Date.parse(from))} to ${minute(end)}`;
  });
  const earlier =
    windows.length > MOST_READ ? `${windows.length - MOST_READ} earlier ranges, ` : '';
  const missing = gaps
    .slice(-MOST_READ)
    .map(
      ({ timeline, from, to, after, before, accepted }) =>
        `${after ? minute(Date.parse(after)) : 'begin'} to ${before ? minute(Date.parse(before)) : 'now'} (timeline ${timeline}, ${from} to ${to}${accepted ? ', accepted' : ''})`,
    );
  return [
    `${name}, ${minute(bar.from)} to now.`,
    windows.length > 0 ? `Restorable: ${earlier}${ranges.join(', ')}.` : 'Nothing can be restored.',
    gaps.length > 0
      ? `WAL is missing: ${gaps.length > MOST_READ ? `${gaps.length} gaps, lately ` : ''}${missing.join(', ')}.`
      : 'No WAL is missing.',
  ].join(' ');
}

/** How far back, how far on: for a line beside the bar. */
export function reach(server: ServerStatus, now: number): Content {
  const { archive } = server;
  const last = archive?.windows.at(-1);
  if (!archive || !last) return undefined;
  const first = archive.windows[0] ?? last;
  const bar = barOf(server, now);
  const live = bar?.segments.findLast(({ kind }) => kind === 'live');
  const to = live?.to ?? Date.parse(last.to);
  const end = now - to < 1000 && live ? 'now' : now - to < 86_400_000 ? clock(to) : utc(to);
  return html`${span(now - Date.parse(first.from))} back to ${end}`;
}
