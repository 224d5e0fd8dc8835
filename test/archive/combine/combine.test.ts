import { describe, expect, it } from 'vitest';
import { Random } from '../../simulation/random.js';
import { ModelTable } from '../../support/model-table.js';
import { type BackupFiles, combinedFiles, storeChain } from '../../support/stored-chain.js';

const GEOMETRY = { blockSize: 1024, segmentBlocks: 8 };
const TABLE = 'base/5/16384';
const MOVED = 'pg_tblspc/16388/PG_18_202506291/5/16390';

/** Names and contents, in an order that compares well. */
function listed(files: BackupFiles) {
  return [...files].map(([path, content]) => [path, content.toString('hex')] as const).sort();
}

function change(table: ModelTable, random: Random): void {
  const block = random.below(table.length);
  const act = random.below(8);
  if (table.length === 0 || act === 0) table.grow(1 + random.below(4));
  else if (act === 1 && table.heap.limit === undefined) table.grow(random.below(3), false);
  else if (act === 2) table.truncate(block);
  else if (act === 3) table.lock(block);
  else if (act < 6) table.vacuum(block);
  else table.change(block);
}

describe('a chain of backups', () => {
  it('is combined to what the tables were, with true maps, over random histories', async () => {
    const random = new Random(23);
    let compared = 0;
    for (let round = 0; round < 20; round++) {
      const tables = [TABLE, MOVED].map((path) => ({ path, table: new ModelTable(GEOMETRY) }));
      for (const { table } of tables) table.grow(8 + random.below(12));
      for (const { table } of tables) for (let b = 0; b < table.length; b++) table.vacuum(b);
      const backups: Map<string, Buffer>[] = [];
      let real = new Map<string, Buffer>();
      for (let n = 0; n < 5; n++) {
        const made = tables.map(({ path, table }) => table.backUp(path, n === 0));
        backups.push(new Map(made.flatMap(({ backup }) => [...backup])));
        real = new Map(made.flatMap((one) => [...one.real]));
        if (n === 4) break;
        for (const { table } of tables)
          for (let i = random.below(7); i > 0; i--) change(table, random);
      }
      const chain = await storeChain(backups, { geometry: GEOMETRY });
      const { files } = await combinedFiles(chain);
      const expected = new Map([...real].filter(([path]) => files.has(path)));
      expect(listed(files)).toEqual(listed(expected));
      compared += files.size;
    }
    expect(compared).toBeGreaterThan(50);
  });
});
