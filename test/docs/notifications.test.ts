import { afterAll, expect, it } from 'vitest';
import { TROUBLES } from '../../src/serve/config/work-model.js';
import { Webhook } from '../../src/serve/notify/webhook.js';
import { Endpoint } from '../serve/notify/endpoint.js';
import { waitFor } from '../support/wait.js';
import { blocksOf, readText } from './documents.js';

const text = readText('docs/serve.md');
let endpoint: Endpoint | undefined;
afterAll(() => endpoint?.close());

it('docs/serve.md has every kind of trouble', () => {
  const table = text.split('\n### Troubles\n')[1]?.split('\n### ')[0] ?? '';
  const rows = table.split('\n').filter((line) => line.startsWith('| `'));
  const kinds = rows.flatMap((row) => row.split(' | ')[0]?.match(/[a-z]+/g) ?? []);
  expect(kinds.sort()).toEqual([...TROUBLES].sort());
});

it('docs/serve.md shows a message as it is sent', async () => {
  const shown = blocksOf('docs/serve.md').filter(
    ({ language, text: json }) => language === 'json' && json.includes('"event"'),
  );
  expect(shown).toHaveLength(1);
  const example = JSON.parse(shown[0]?.text ?? '');
  endpoint = await Endpoint.start();
  const webhook = new Webhook({ urlFile: endpoint.urlFile, on: ['gap'] }, () => {});
  const { id, server, severity, text: told, since } = example;
  webhook.note({ begun: [{ id, server, kind: 'gap', severity, text: told, since }], over: [] });
  await waitFor(() => endpoint?.asked.length === 1);
  webhook.end();
  const [sent = {}] = endpoint.messages;
  expect(Object.keys(sent)).toEqual(Object.keys(example));
  expect({ ...sent, at: example.at, host: example.host }).toEqual(example);
});
