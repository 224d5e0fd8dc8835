import type { ServerStatus, StoreStatus } from '../../serve/status.js';
import { formatBytes, formatSeconds } from '../../units.js';
import { tableText } from '../table.js';

/** `ok`, `1 away`, `1 away, 1 held`: of all stores of a server. */
export function storesInBrief({ stores = [] }: ServerStatus): string {
  const states = [...new Set(stores.map(({ state }) => state))].filter((one) => one !== 'shipping');
  const count = (state: string) => stores.filter((store) => store.state === state).length;
  const parts = states.sort().map((state) => `${count(state)} ${state}`);
  return parts.length > 0 ? parts.join(', ') : stores.length > 0 ? 'ok' : '';
}

const HEADER = ['STORE', 'STATE', 'FOR', 'SHIPPED', 'QUEUE', 'RPO', 'WHY'];

/** Undefined: there are none. */
export function storesTable({ stores = [] }: ServerStatus): string | undefined {
  return stores.length === 0 ? undefined : tableText(HEADER, stores.map(row));
}

function row(store: StoreStatus): string[] {
  const { name, state, since, shippedLsn = '', queueBytes, rpoSeconds, error } = store;
  return [
    ...[name, state, formatSeconds(Math.max(0, Date.now() - Date.parse(since)) / 1000)],
    ...[shippedLsn, queueBytes === undefined ? '' : formatBytes(queueBytes)],
    ...[formatSeconds(rpoSeconds), error?.message ?? ''],
  ];
}
