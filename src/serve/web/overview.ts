import type { ServerStatus } from '../status.js';
import { barView, LEGEND, reach } from './bar-view.js';
import { factsView, sign, sourceView, stateView, troublesView } from './facts-view.js';
import { type Html, html, joined } from './html.js';
import type { LivePage } from './layout.js';
import type { WebFacts } from './page.js';
import { levelOf, troublesOf } from './troubles.js';

export const serverPath = (name: string): string => `/server/${encodeURIComponent(name)}`;

/** All servers. */
export function overview(facts: WebFacts, now: number): LivePage {
  const servers = facts.servers();
  return {
    title: 'Servers',
    parts: [
      { id: 'title', body: html`<h1>${count(servers.length)}</h1>` },
      { id: 'alarms', body: summary(servers, facts.configIsGood()), polite: true },
      { id: 'legend', body: LEGEND },
      ...servers.map((server) => ({
        id: `s-${encodeURIComponent(server.name)}`,
        body: card(server, facts, now),
      })),
    ],
  };
}

const count = (n: number): string => (n === 1 ? '1 server' : `${n} servers`);

function summary(servers: readonly ServerStatus[], configIsGood: boolean): Html {
  const levels = servers.map((server) => ({
    name: server.name,
    level: levelOf(troublesOf(server)),
  }));
  const not = (level: 'bad' | 'warn') => levels.filter((one) => one.level === level);
  const of = (level: 'bad' | 'warn', what: string) => {
    const names = not(level);
    const links = names.map(
      ({ name }) => html`<a href="#s-${encodeURIComponent(name)}">${name}</a>`,
    );
    return names.length > 0 && html`<p>${sign(level)} ${what}: ${joined(links, ', ')}</p>`;
  };
  const well = levels.every(({ level }) => level === 'good');
  return html`<div class="summary">${
    well && html`<p>${sign('good')} ${servers.length === 1 ? 'It is well.' : 'All are well.'}</p>`
  }${of('bad', 'Needs attention')}${of('warn', 'Worth a look')}${
    !configIsGood &&
    html`<p>${sign('bad')} The configuration was not good when it was read last; the one before is in use.</p>`
  }</div>`;
}

function card(server: ServerStatus, facts: WebFacts, now: number): Html {
  const troubles = troublesOf(server);
  const level = levelOf(troubles);
  return html`<section class="panel ${level}" aria-label="${server.name}">
<header><h2><a href="${serverPath(server.name)}">${server.name}</a></h2> ${stateView(server, stateLevel(server, level), now)}<small class="source">${sourceView(server)}</small><small class="reach">${reach(server, now)}</small></header>
${barView(server, now)}
${factsView(server, facts.work(server.name), now)}
${troublesView(troubles, now)}
</section>`;
}

/** Of the state alone: what streams, streams, whatever else is wrong. */
export function stateLevel(
  { state }: ServerStatus,
  level: ReturnType<typeof levelOf>,
): ReturnType<typeof levelOf> {
  if (state === 'streaming') return 'good';
  return level === 'bad' ? 'bad' : 'warn';
}
