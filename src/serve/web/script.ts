/** The one script: puts what changed in its place. Without it pages are as good, but stand still. */
export const SCRIPT = `'use strict';
(() => {
  const stamp = document.getElementById('stamp');
  const stale = document.getElementById('stale');
  document.documentElement.classList.add('script');

  document.addEventListener('click', (event) => {
    const button = event.target.closest('[data-copy]');
    if (!button) return;
    const text = document.getElementById(button.dataset.copy).textContent;
    navigator.clipboard.writeText(text).then(
      () => { button.textContent = 'Copied'; },
      () => { button.textContent = 'Could not copy'; },
    );
  });

  let version = document.body.dataset.live;
  if (version === undefined) return;
  let source;
  let heard = Date.now();

  const hear = (now) => {
    heard = Date.now();
    stamp.textContent = new Date(now).toISOString().slice(11, 19) + ' UTC';
    if (stale.textContent !== '') stale.textContent = '';
    document.body.classList.remove('stale');
  };

  const reachable = 'a[href], button, input, select, textarea, summary, [tabindex]';
  const replace = (id, text) => {
    const part = document.getElementById(id);
    if (!part) return location.reload();
    const active = document.activeElement;
    const focused = part.contains(active) ? [...part.querySelectorAll(reachable)].indexOf(active) : -1;
    const scrolled = [...part.querySelectorAll('.scroll')].map((box) => [box.scrollLeft, box.scrollTop]);
    part.innerHTML = text;
    if (focused >= 0) part.querySelectorAll(reachable)[focused]?.focus({ preventScroll: true });
    part.querySelectorAll('.scroll').forEach((box, i) => {
      if (scrolled[i]) [box.scrollLeft, box.scrollTop] = scrolled[i];
    });
  };

  const open = () => {
    source?.close();
    const query = new URLSearchParams({ page: location.pathname, version });
    source = new EventSource('/events?' + query);
    source.addEventListener('message', ({ data, lastEventId }) => {
      const { now, parts } = JSON.parse(data);
      for (const [id, text] of Object.entries(parts)) replace(id, text);
      version = lastEventId;
      hear(now);
    });
    source.addEventListener('beat', ({ data }) => hear(JSON.parse(data).now));
    source.addEventListener('reload', () => location.reload());
  };

  setInterval(() => {
    if (document.hidden) return;
    const silent = Date.now() - heard;
    if (silent > 15000 && stale.textContent === '') {
      stale.textContent = 'Nothing was heard since: what is shown may be old.';
      document.body.classList.add('stale');
    }
    // A refusal is final for an EventSource; the page comes by again.
    if (silent > 15000 && source.readyState === EventSource.CLOSED) open();
  }, 5000);

  // A browser keeps few connections to one place: a page that nobody sees needs none.
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) source.close();
    else { heard = Date.now(); open(); }
  });
  if (!document.hidden) open();
})();
`;
