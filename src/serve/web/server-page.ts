import { formatBytes } from '../../units.js';
import type { ArchiveStatus, ServerStatus } from '../status.js';
import { barView, LEGEND, reach } from './bar-view.js';
import { factsView, jobName, sign, sourceView, stateView, troublesView } from './facts-view.js';
import { type Content, type Html, html, joined } from './html.js';
import { lagGraph } from './lag-graph.js';
import type { LivePage } from './layout.js';
import { SAMPLE } from './memory.js';
import { serverPath, stateLevel } from './overview.js';
import type { Noted, PageRequest } from './page.js';
import { ago, ahead, exact, span, timed, utc } from './times.js';
import { levelOf, troublesOf } from './troubles.js';

const HOUR = 3_600_000;
/** Rows at most; the newest stand first. */
const MOST_ROWS = 100;

/** All that is known of one server. */
export function serverPage({ facts, memory, server, now }: Omit<PageRequest, 'query'>): LivePage {
  const work = facts.work(server.name);
  const troubles = troublesOf(server);
  // Before it was read there is nothing to tell of it.
  const archive = server.archive?.readAt === undefined ? undefined : server.archive;
  // The graph moves on with the samples, not with the clock.
  const lag = memory.lag(server.name);
  const graphed = lag.at(-1)?.at ?? Math.floor(now / SAMPLE) * SAMPLE;
  const level = stateLevel(server, levelOf(troubles));
  return {
    title: server.name,
    parts: [
      {
        id: 'head',
        body: html`<h1>${server.name}</h1><p class="under">${stateView(server, level, now)}<small class="source">${sourceView(server)}</small></p>`,
      },
      { id: 'troubles', body: html`${troublesView(troubles, now)}`, polite: true },
      {
        id: 'bar',
        body: section(
          'What can be restored',
          html`<p class="under">${reach(server, now) ?? 'Nothing yet.'}</p>${barView(server, now)}${LEGEND}`,
        ),
      },
      { id: 'facts', body: section('Now', factsView(server, work, now)) },
      { id: 'restore', body: section('Restore to', restoreForm(server.name)) },
      {
        id: 'lag',
        body: section('Recovery point', lagGraph(lag, server.rpoLimitSeconds, HOUR, graphed)),
      },
      { id: 'windows', body: archive ? section('Ranges', ranges(archive)) : html`` },
      { id: 'backups', body: archive ? section('Backups', backups(archive)) : html`` },
      { id: 'timelines', body: archive ? section('Timelines', timelines(archive)) : html`` },
      { id: 'jobs', body: jobs(server, now) },
      { id: 'members', body: members(server) },
      { id: 'events', body: section('Events', events(memory.events(server.name))) },
    ],
  };
}

function section(title: string, body: Content): Html {
  return html`<section class="panel"><h2>${title}</h2>${body}</section>`;
}

function restoreForm(name: string): Html {
  return html`<form class="row" action="${serverPath(name)}/restore" method="get">
<label for="restore-time">Time in UTC</label><input id="restore-time" name="to" type="datetime-local" step="1">
<button>Show how</button> <small>Shows the backup, the WAL and the command, or why it cannot be. Nothing is restored.</small></form>`;
}

interface Column {
  name: string;
  /** A number stands at the right; a text of any length is wrapped. */
  is?: 'number' | 'text';
}

function table(
  caption: string,
  columns: readonly (string | Column)[],
  rows: readonly (readonly Content[])[],
  none: string,
  leftOut = 0,
): Html {
  if (rows.length === 0) return html`<p class="empty">${none}</p>`;
  const all = columns.map((one) => (typeof one === 'string' ? { name: one } : one));
  const shown = rows.slice(0, MOST_ROWS);
  const count = rows.length + leftOut;
  const cut =
    count > shown.length && html`<p class="empty">The newest ${shown.length} of ${count}.</p>`;
  return html`${cut}<div class="scroll" tabindex="0" role="region" aria-label="${caption}"><table><thead><tr>${joined(
    all.map(({ name, is }) => html`<th scope="col" class="${is}">${name}</th>`),
  )}</tr></thead><tbody>${joined(
    shown.map(
      (cells) =>
        html`<tr>${joined(cells.map((cell, i) => html`<td class="${all[i]?.is}">${cell}</td>`))}</tr>`,
    ),
  )}</tbody></table></div>`;
}

const number = (name: string): Column => ({ name, is: 'number' });
const text = (name: string): Column => ({ name, is: 'text' });

/** The bar as text: windows and gaps, the newest first. */
function ranges({ windows, besideWindows, gaps, more }: ArchiveStatus): Html {
  const order = (iso: string | undefined) => (iso === undefined ? 0 : Date.parse(iso));
  const rows = [
    ...[...windows, ...besideWindows].map((window) => ({
      at: order(window.from),
      cells: [
        html`${sign('good')} restorable${besideWindows.includes(window) && ' (not followed)'}`,
        ...[exact(window.from), exact(window.to), window.timeline],
        `from backup ${window.backup}, ${window.place}`,
      ] as Content[],
    })),
    ...gaps.map(({ timeline, from, to, segments, after, before, accepted }) => ({
      at: order(after ?? before),
      cells: [
        html`${sign(accepted ? 'warn' : 'bad')} missing${accepted && ' (accepted)'}`,
        ...[exact(after), exact(before), timeline],
        `${from} to ${to}, ${segments} ${segments === 1 ? 'segment' : 'segments'}`,
      ] as Content[],
    })),
  ].sort((a, b) => b.at - a.at);
  return table(
    'Ranges',
    ['What', 'From', 'To', number('Timeline'), text('More')],
    rows.map(({ cells }) => cells),
    'Nothing can be restored, and no WAL is missing.',
    (more?.windows ?? 0) + (more?.gaps ?? 0),
  );
}

function backups({ backups, more }: ArchiveStatus): Html {
  return table(
    'Backups',
    [
      ...['Backup', 'Where', 'Type', 'State', 'Taken'],
      ...[number('Timeline'), number('Size'), text('Restorable to')],
    ],
    [...backups]
      .reverse()
      .map(({ id, place, type, state, endedAt, startedAt, timeline, bytes, ...one }) => [
        ...[html`<code>${id}</code>`, place, type ?? '–', state, exact(endedAt ?? startedAt)],
        ...[timeline ?? '–', bytes === undefined ? '–' : formatBytes(bytes)],
        one.restorableTo === undefined
          ? html`${sign('bad')} nothing${one.why !== undefined && `: ${one.why}`}`
          : exact(one.restorableTo),
      ]),
    'There is no backup.',
    more?.backups,
  );
}

function timelines({ timelines, segments, bytes, readAt, freeBytes, more }: ArchiveStatus): Html {
  const free = freeBytes === undefined ? '' : `; ${formatBytes(freeBytes)} free`;
  return html`<p class="under">${segments} segments, ${formatBytes(bytes)}${free}; as read at ${exact(readAt)}</p>${table(
    'Timelines',
    [
      ...[number('Timeline'), 'Branched off', 'From', 'To'],
      ...[number('Segments'), number('Size')],
      ...['First commit', 'Last commit'],
    ],
    [...timelines]
      .reverse()
      .flatMap(({ timeline, parent, branch, beside, ranges }) =>
        [...ranges]
          .reverse()
          .map(({ from, to, segments, bytes, firstCommit, lastCommit }) => [
            timeline,
            html`${parent === undefined ? '–' : `${parent}${branch === undefined ? '' : ` at ${branch}`}`}${beside && ` (${beside})`}`,
            ...[html`<code>${from}</code>`, html`<code>${to}</code>`, segments, formatBytes(bytes)],
            ...[exact(firstCommit), exact(lastCommit)],
          ]),
      ),
    'There is no WAL.',
    more?.ranges,
  )}`;
}

function jobs({ jobs = [] }: ServerStatus, now: number): Html {
  if (jobs.length === 0) return html``;
  return section(
    'Jobs and findings',
    table(
      'Jobs',
      ['Job', 'Last', text('How it ended'), 'Next', 'When'],
      jobs.map(({ state, schedule, next, last, ...job }) => [
        jobName(job),
        last ? timed(last.endedAt, (at) => ago(at, now)) : '–',
        last ? ending(last) : '–',
        state === 'waiting'
          ? next
            ? timed(next, (at) => ahead(at, now))
            : '–'
          : html`<b>${state}</b>`,
        schedule === undefined ? 'when asked' : html`<code>${schedule}</code>`,
      ]),
      '',
    ),
  );
}

function ending({
  outcome,
  findings,
  error,
  startedAt,
  endedAt,
  by,
}: NonNullable<NonNullable<ServerStatus['jobs']>[number]['last']>): Html {
  const level = outcome === 'good' ? 'good' : outcome === 'ended' ? 'warn' : 'bad';
  const took = span(Date.parse(endedAt) - Date.parse(startedAt));
  const more = [
    ...(findings ? [`${findings} ${findings === 1 ? 'finding' : 'findings'}`] : []),
    ...(error ? [`${error.code}: ${error.message}`] : []),
    ...(by === 'missed' ? ['made up for'] : []),
    `took ${took}`,
  ].join('; ');
  return html`${sign(level)} ${outcome} <small>${more}</small>`;
}

function members({ receiver }: ServerStatus): Html {
  const all = Object.entries(receiver?.members ?? {});
  if (all.length === 0) return html``;
  return section(
    'Members',
    table(
      'Members',
      ['Member', 'Its slot covers a failover', text('More')],
      all.map(([member, { covers, message }]) => [
        member,
        covers === true
          ? html`${sign('good')} yes`
          : html`${sign('warn')} ${covers === null ? 'not known' : 'no'}`,
        message,
      ]),
      '',
    ),
  );
}

function events(all: ReturnType<PageRequest['memory']['events']>): Html {
  if (all.length === 0) {
    return html`<p class="empty">Nothing happened since the program began.</p>`;
  }
  return html`<ul class="events">${joined([...all].reverse().map(eventView))}</ul>`;
}

function eventView({ at, entry: { level, event, message, code, hint } }: Noted): Html {
  const mark = level !== 'info' && html`${sign(level === 'error' ? 'bad' : 'warn')} `;
  return html`<li><time datetime="${new Date(at).toISOString()}">${utc(at)}</time><b>${mark}${event}</b><span>${message}${code !== undefined && html` <code>${code}</code>`}${hint !== undefined && html` <small>${hint}</small>`}</span></li>`;
}
