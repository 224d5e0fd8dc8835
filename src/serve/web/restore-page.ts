import { formatBytes } from '../../units.js';
import type { BuilderAnswer } from '../restore/builder.js';
import { nearQuery, statusCode } from '../restore/builder.js';
import type { Commit, NearTarget, RestorePlanned } from '../restore/messages.js';
import { ACTIONS, DEFAULT_DATA_DIR, type Field, placeNames } from '../restore/query.js';
import { fact, sign } from './facts-view.js';
import { type Content, type Html, html, joined, lines } from './html.js';
import { serverPath } from './overview.js';
import type { PageRequest, ServerData, ServerPage } from './page.js';
import { exact, span } from './times.js';

type Planned = Extract<BuilderAnswer, { state: 'planned' }>;
type Refused = Extract<BuilderAnswer, { state: 'refused' }>;
type Failed = Extract<BuilderAnswer, { state: 'failed' }>;

const ACTION_TEXTS: Readonly<Record<(typeof ACTIONS)[number], string>> = {
  pause: 'pause: look first',
  promote: 'promote: take writes',
  shutdown: 'shut down',
};

/** What a restore to a moment would do, and how it is done; or why it cannot be. */
export const restorePage: ServerPage = async (request) => {
  const { facts, server, query } = request;
  const answer = await facts.restore(server, query);
  return {
    ...{ status: statusCode(answer), title: 'Restore' },
    body: html`<h1>Restore ${server.name} to a moment</h1>
${formView(request, answer)}
${answerView(server.name, answer)}`,
  };
};

/** The same for programs. */
export const restoreData: ServerData = async ({ facts, server, query }) => {
  const answer = await facts.restore(server, query);
  return { status: statusCode(answer), value: { server: server.name, ...answer } };
};

function answerView(server: string, answer: BuilderAnswer): Html {
  switch (answer.state) {
    case 'planned':
      return plannedView(answer);
    case 'refused':
      return refusedView(server, answer);
    case 'failed':
      return failedView(answer);
    case 'invalid':
      return html`<p class="notice bad" role="alert">${sign('bad')} That cannot be asked: ${answer.faults
        .map(({ field, message }) => (field === undefined ? message : `${field} ${message}`))
        .join('; ')}.</p>`;
  }
}

function formView({ facts, server, query }: PageRequest, answer: BuilderAnswer): Html {
  const faults = answer.state === 'invalid' ? answer.faults : [];
  const wrong = (field: Field) =>
    faults.some((fault) => fault.field === field) && html` aria-invalid="true"`;
  const value = (field: Field) => query.get(field) ?? '';
  const { archive } = server;
  const work = facts.work(server.name);
  const places = work ? placeNames(work) : [];
  const asked = query.getAll('from').filter((name) => places.includes(name));
  const timelines = [...new Set(archive?.timelines.map(({ timeline }) => `${timeline}`))];
  const backups = [...new Set(archive?.backups.map(({ id }) => id))].reverse();
  return html`<section class="panel"><h2>Restore to</h2><form action="${serverPath(server.name)}/restore" method="get">
<div class="row"><label for="to">Target</label><input id="to" name="to" size="34" maxlength="200" placeholder="latest" value="${value('to')}" aria-describedby="to-help"${wrong('to')}>
<input id="before" name="before" type="checkbox" value="on"${value('before') !== '' && html` checked`}${wrong('before')}><label for="before">stop just before it</label></div>
<p class="under" id="to-help">latest, a time such as 2026-08-01 12:00:00 (UTC, unless it has a zone), an LSN as 0/3A5F2E8, xid:771, name:X of a restore point, or immediate, the end of a backup.</p>
<div class="row"><label for="timeline">Along timeline</label><select id="timeline" name="timeline"${wrong('timeline')}>${options(timelines, value('timeline'), 'the newest')}</select>
<label for="backup">from backup</label><select id="backup" name="backup"${wrong('backup')}>${options(backups, value('backup'), 'the newest that fits')}</select></div>
<div class="row"><label for="pgdata">Into PGDATA</label><input id="pgdata" name="pgdata" size="34" maxlength="1024" value="${value('pgdata') || DEFAULT_DATA_DIR}"${wrong('pgdata')}>
<label for="action">at the target</label><select id="action" name="action"${wrong('action')}>${joined(
    ACTIONS.map(
      (one) =>
        html`<option value="${one}"${value('action') === one && html` selected`}>${ACTION_TEXTS[one]}</option>`,
    ),
  )}</select></div>
${places.length > 1 && placesView(places, asked)}
<div class="row"><button>Show how</button> <small>Nothing is restored here: it shows the command for the machine that is to have the server.</small></div></form></section>`;
}

function placesView(places: readonly string[], asked: readonly string[]): Html {
  return html`<fieldset class="row"><legend>Read from</legend>${joined(
    places.map(
      (name, i) =>
        html`<span><input id="from-${i}" name="from" type="checkbox" value="${name}"${(asked.length === 0 || asked.includes(name)) && html` checked`}><label for="from-${i}">${name}</label></span> `,
    ),
  )}</fieldset>`;
}

function options(known: readonly string[], chosen: string, none: string): Content {
  // Also one that is gone, or that nobody knows: what was asked for is what is shown.
  const all = chosen === '' || known.includes(chosen) ? known : [chosen, ...known];
  return html`<option value="">${none}</option>${joined(
    all.map((one) => html`<option${one === chosen && html` selected`}>${one}</option>`),
  )}`;
}

function plannedView({ plan, command, needs, steps, plannedAt }: Planned): Html {
  const { backup, wal, last, next } = plan;
  return html`<section class="panel"><h2>${sign('good')} ${endText(plan)}</h2>
<dl class="facts wide">
${fact('Last commit that is there', last ? moment(last.time) : 'none found close before it', last && placeOf(last))}
${fact('First that is not', next ? moment(next.time) : plan.isLatest ? 'none' : 'none near it', next && placeOf(next))}
${fact('Backup', html`<code>${backup.id}</code>`, html`${backup.type} in ${backup.place}, ended ${exact(backup.endedAt)} at ${backup.endLsn} on timeline ${backup.timeline}${chainText(backup)}`)}
${fact('Size', formatBytes(backup.bytes), `of PostgreSQL ${backup.version}${backup.encrypted ? ', encrypted' : ''}`)}
${fact('WAL', `${wal.segments} ${wal.segments === 1 ? 'segment' : 'segments'}`, `${wal.first} to ${wal.last}, ${formatBytes(wal.bytes)} from ${wal.from} to ${wal.to}`)}
${fact('Timelines', plan.timelines.map(({ timeline }) => timeline).join(', then '), wayText(plan))}
</dl></section>
<section class="panel" id="lost"><h2>What is lost</h2><ul class="points">${joined(lostTexts(plan).map((text) => html`<li>${text}</li>`))}</ul></section>
<section class="panel"><h2>Command</h2>
<pre class="command" id="command" tabindex="0" role="region" aria-label="Command">${lines(command)}</pre>
<button class="needs-script" type="button" data-copy="command">Copy</button>
<h3>It needs</h3><ul class="points">${joined(needs.map((need) => html`<li>${need}</li>`))}</ul>
<h3>Then</h3><ol class="points">${joined(steps.map((step) => html`<li>${step}</li>`))}</ol>
<p class="under">As the archive was at ${exact(plannedAt)}. What that machine lacks, the command says before it writes anything.</p></section>
${warningsView(plan.warnings)}`;
}

function endText({ isLatest, target, lsn }: RestorePlanned): string {
  if (isLatest) return `Recovery goes on to the end of the archive, ${lsn} or later`;
  return target[1] === 'immediate'
    ? `Recovery ends at ${lsn}, where the backup is consistent`
    : `Recovery ends at ${lsn}`;
}

function placeOf({ lsn, xid }: Commit): string {
  return `${xid === undefined ? '' : `transaction ${xid} `}at ${lsn}`;
}

/** Exactly: two commits may be of one second. */
function moment(time: string): Html {
  return html`<time datetime="${time}">${momentText(time)}</time>`;
}

function momentText(time: string): string {
  return time.replace('T', ' ').replace('Z', ' UTC');
}

function chainText({ chain }: RestorePlanned['backup']): string {
  return chain.length < 2 ? '' : `; made of ${chain.slice(0, -1).join(', ')} and itself`;
}

function wayText({ timelines }: RestorePlanned): string {
  return timelines
    .flatMap(({ timeline, until }) => (until === undefined ? [] : `${timeline} up to ${until}`))
    .join('; ');
}

function lostTexts(plan: RestorePlanned): string[] {
  const { lost, last, isLatest } = plan;
  const texts: string[] = [];
  const later =
    lost.last && last
      ? `, ${span(Date.parse(lost.last.time) - Date.parse(last.time))} after the last one that is there`
      : '';
  const latest = lost.last && `the last of ${momentText(lost.last.time)}${later}`;
  if (isLatest)
    texts.push('Nothing that is in the archive; what comes until then is recovered, too.');
  else if (lost.commits === undefined) {
    const many = `All commits in ${lost.segments} segments behind it`;
    texts.push(latest === undefined ? `${many}.` : `${many}, ${latest}.`);
  } else if (lost.commits === 0) texts.push('No commit that is in the archive.');
  else {
    const many = lost.commits === 1 ? '1 commit' : `${lost.commits} commits`;
    texts.push(`${many} behind it, ${latest}.`);
  }
  if (lost.isTorn) {
    texts.push(
      'WAL behind it is missing or cannot be read: what was committed there is lost already.',
    );
  }
  for (const { timeline, from, last } of lost.beside) {
    const until = last ? `, with its last commit of ${momentText(last.time)}` : '';
    texts.push(`Timeline ${timeline} from ${from} on${until}: it is not on this way.`);
  }
  return texts;
}

function warningsView(warnings: readonly string[]): Content {
  if (warnings.length === 0) return undefined;
  return html`<section class="panel warn"><h2>${sign('warn')} To know</h2><ul class="points">${joined(warnings.map((one) => html`<li>${one}</li>`))}</ul></section>`;
}

function refusedView(server: string, answer: Refused): Html {
  const { error, before, after, timelines, query, warnings, plannedAt } = answer;
  const link = (near: NearTarget, text: Content) =>
    html`<a href="${serverPath(server)}/restore?${`${nearQuery(query, near)}`}">${text}</a>`;
  const along = timelines.map((timeline) => {
    const near = { to: query.to, timeline, lsn: '' };
    const params = nearQuery(query, near);
    if (query.before) params.set('before', 'on');
    return html`<li><a href="${serverPath(server)}/restore?${`${params}`}">The same along timeline ${timeline}</a></li>`;
  });
  return html`<section class="panel bad" id="refused"><h2>${sign('bad')} It cannot be reached</h2>
<p class="notice bad" role="alert">${error.message}${error.detail !== undefined && html` ${error.detail}`}</p>
${error.hint !== undefined && html`<p>${error.hint}</p>`}
${(before || after || along.length > 0) && html`<h3>What can be</h3><ul class="points">${before && html`<li>${link(before, nearText(before, 'The last before'))}</li>`}${after && html`<li>${link(after, nearText(after, 'The first after'))}</li>`}${joined(along)}</ul>`}
<p class="under">As the archive was at ${exact(plannedAt)}.</p></section>
${warningsView(warnings)}`;
}

function nearText({ time, lsn, timeline, backup }: NearTarget, what: string): string {
  const when = time === undefined ? lsn : `${momentText(time)}, ${lsn}`;
  const end = backup === undefined ? '' : `, the end of backup ${backup}`;
  return `${what}: ${when} on the way to timeline ${timeline}${end}`;
}

function failedView({ error }: Failed): Html {
  return html`<section class="panel warn" id="failed"><h2>${sign('warn')} That cannot be told</h2>
<p class="notice warn" role="alert"><code>${error.code}</code> ${error.message}${error.detail !== undefined && html` ${error.detail}`}</p>
${error.hint !== undefined && html`<p>${error.hint}</p>`}</section>`;
}
