import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { promisify } from 'node:util';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { build } from 'esbuild';
import { publint } from 'publint';
import { describe, expect, type TestContext, test } from 'vitest';
import { packageRoot, scratchDir } from '../support/scratch.js';

const exec = promisify(execFile);
const NPM_OPTIONS = ['--no-audit', '--no-fund', '--loglevel=error'];
/** npm could not reach a registry: nothing that the package is to blame for. */
const OFFLINE = /ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH/;

const run = (command: string, args: string[], cwd: string) =>
  exec(command, args, { cwd, maxBuffer: 1e8 }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }) => ({ code: code as number, stdout, stderr }),
  );

interface Installed {
  folder: string;
  tarball: string;
  files: string[];
  offline?: string;
}

let installing: Promise<Installed> | undefined;

/** An empty folder with the packed package installed; made once. */
async function installed(context: TestContext) {
  installing ??= install();
  const result = await installing;
  if (result.offline) context.skip(`the registry cannot be reached: ${result.offline}`);
  return result;
}

async function install(): Promise<Installed> {
  const folder = scratchDir('consumer');
  // Without scripts: a build would rewrite files that other tests run at this moment.
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const { stdout } = await exec('npm', args, { cwd: packageRoot });
  const [packed] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
  const files = packed.files.map(({ path }) => path);
  const tarball = join(folder, packed.filename);
  await writeFile(join(folder, 'package.json'), '{ "name": "consumer", "private": true }\n');
  const npm = await run(
    'npm',
    ['install', `./${packed.filename}`, '--prefer-offline', '--fetch-retries=0', ...NPM_OPTIONS],
    folder,
  );
  if (npm.code !== 0 && OFFLINE.test(npm.stderr)) {
    return { folder, tarball, files, offline: npm.stderr.split('\n')[0] ?? '' };
  }
  expect(npm).toMatchObject({ code: 0 });
  return { folder, tarball, files };
}

/** Compiles a consumer's source in strict mode; gives what tsc has to say. */
async function compile(folder: string, name: string, type: string, source: string) {
  const dir = join(folder, name);
  await mkdir(dir);
  await writeFile(join(dir, 'package.json'), JSON.stringify({ name, type, private: true }));
  await writeFile(join(dir, 'index.ts'), source);
  const compilerOptions = {
    target: 'es2022',
    module: 'nodenext',
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    // Our declarations are to be right under these settings, too.
    skipLibCheck: false,
    // An inferred type that is not exported by its name cannot be written down: an error.
    declaration: true,
    outDir: 'out',
    types: ['node'],
    typeRoots: [join(packageRoot, 'node_modules', '@types')],
  };
  await writeFile(
    join(dir, 'tsconfig.json'),
    JSON.stringify({ compilerOptions, files: ['index.ts'] }),
  );
  const tsc = join(packageRoot, 'node_modules', 'typescript', 'bin', 'tsc');
  const { stdout } = await run(process.execPath, [tsc, '-p', '.'], dir);
  return { output: stdout, program: join(dir, 'out', 'index.js') };
}

/** Uses everything public, and exports what the compiler infers of it. */
const ESM_CONSUMER = `
import * as walkeep from 'walkeep';
import { connect, parseLsn, readLedger, resolveSettings, scanDirectory, WalReceiver } from 'walkeep';

export const receiver = new WalReceiver({
  connection: 'host=/nowhere user=u', directory: '.', reconnect: false, endLsn: parseLsn('0/1'),
  compression: { method: 'gzip', level: 1 },
});
receiver.on('segment', ({ path, lsn }) => console.log(path.length, lsn + 1n));
receiver.on('disconnect', ({ error }) => console.log(error.code));
export const settings = () => resolveSettings({ conninfo: 'user=u', fallbackApplicationName: 'a' });
export const target = async () => (await settings()).targets[0];
export const session = async () => connect(await settings(), { onNotice: (n) => console.log(n.message) });
export const answers = async () => {
  const c = await session();
  return {
    system: await c.identifySystem(), slot: await c.readReplicationSlot('s'),
    history: await c.timelineHistory(2), rows: await c.query('SHOW x'),
  };
};
export const fields = async () => (await answers()).rows.fields[0];
type Start = Parameters<walkeep.ReplicationConnection['startReplication']>;
export const options = null as unknown as Start[0];
export const handler = null as unknown as Start[1];
export const stream = async () => (await session()).startReplication(options, handler);
export const status = null as unknown as Parameters<walkeep.WalStream['sendStatus']>[0];
export const slot = null as unknown as Parameters<walkeep.ReplicationConnection['createPhysicalSlot']>[1];
export const notice = null as unknown as Parameters<NonNullable<walkeep.ConnectOptions['onNotice']>>[0];
export const mode = null as unknown as walkeep.ConnectOptions['replication'];
export const ledger = () => readLedger('.');
export const entry = async () => (await ledger())?.lineage[0];
export const others = async () => {
  const state = await ledger();
  return [state?.gaps[0], state?.damages[0], null as unknown as walkeep.LedgerEntry];
};
export const scan = () => scanDirectory('.', walkeep.MIN_SEGMENT_SIZE);
export const file = async () => (await scan()).segments[0];
export const history = async () => (await scan()).histories[0];
export const name = walkeep.parseSegmentFileName('000000010000000000000001', 2 ** 24);
export const timeline = walkeep.parseTimelineHistory(2, '1\\t0/3000000\\tno recovery target');
export const ancestor = timeline.ancestors[0];
export const events = null as unknown as walkeep.ReceiverEvents;
export const warning = events?.warning?.[0];
export const compression = null as unknown as walkeep.WalReceiverOptions['compression'];
export const verify = null as unknown as walkeep.WalReceiverOptions['verify'];
export class Sink implements walkeep.WalSink {
  readonly chunks: Buffer[] = [];
  async write(chunk: Buffer, lsn: walkeep.Lsn) { this.chunks.push(chunk); void lsn; }
  async flush() {}
  async timeline(next: { timeline: number; lsn: walkeep.Lsn }) { console.log(next.timeline); }
}
export const sinkOptions: walkeep.StreamWalOptions = { connection: 'host=/nowhere user=u' };
export const streamed = () => walkeep.streamWal(sinkOptions, new Sink(), AbortSignal.timeout(1));
export const decoder = new walkeep.WalDecoder({ startLsn: parseLsn('0/1000000'), segmentSize: 2 ** 24 });
export const record = decoder.next();
export const body = () => record?.body && walkeep.parseRecordBody(record.body);
export const end = () => record && walkeep.parseXactRecord(record, body()?.data ?? Buffer.of(), 18);
export const verifier = new walkeep.WalVerifier({ startLsn: parseLsn('0/1000000'), segmentSize: 2 ** 24 });
export const fault = verifier.feed(Buffer.alloc(8192));

try {
  await receiver.run();
} catch (error) {
  if (!(error instanceof walkeep.WalkeepError)) throw error;
  console.log(error instanceof walkeep.ConnectionError);
}
console.log(await streamed().catch((error) => error.code), fault?.kind);
`;

const COMMONJS_CONSUMER = `
import type { Lsn } from 'walkeep' with { 'resolution-mode': 'import' };
export async function start(): Promise<Lsn> {
  const { parseLsn, formatLsn } = await import('walkeep');
  const lsn = parseLsn('16/B374D848');
  console.log(formatLsn(lsn));
  return lsn;
}
void start();
`;

describe('the packed and installed package', { timeout: 120_000 }, () => {
  test('has what it needs and nothing else', async (context) => {
    const { files } = await installed(context);
    const others = files.filter((path) => !/^(bin|dist|docs|examples)\//.test(path)).sort();
    expect(others).toEqual([
      ...['CHANGELOG.md', 'LICENSE', 'README.md', 'SECURITY.md'],
      ...['benchmarks/README.md', 'package.json'],
    ]);
    expect(files).toEqual(expect.arrayContaining(['bin/walkeep', 'bin/pg_receivewal']));
  });

  test('has what its documents lead to', async (context) => {
    const { files } = await installed(context);
    const documents = files.filter((path) => path.endsWith('.md'));
    expect(documents).toEqual(expect.arrayContaining(['README.md', 'docs/README.md']));
    const missing = documents.flatMap((file) => {
      const text = readFileSync(join(packageRoot, file), 'utf8');
      const found = [...text.matchAll(/\]\(([^)#]+)[^)]*\)|\bsrc="([^"]+)"/g)].map(
        (m) => m[1] ?? m[2],
      );
      return found
        .filter((link) => link !== undefined && !/^https?:/.test(link))
        .map((link) => normalize(join(dirname(file), link as string)))
        .filter((target) => !files.some((path) => path === target || path.startsWith(`${target}/`)))
        .map((target) => `${file}: ${target}`);
    });
    expect(missing).toEqual([]);
  });

  test('has working executables', async (context) => {
    const { folder } = await installed(context);
    const npx = await run('npx', ['--no-install', 'walkeep', '--version'], folder);
    expect(npx).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^walkeep \d+\.\d+\.\d+\n$/),
    });
    const dropIn = join(folder, 'node_modules', 'walkeep', 'bin', 'pg_receivewal');
    const version = await run(dropIn, ['--version'], folder);
    expect(version).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^pg_receivewal \(PostgreSQL\) 18\.\d+ \(walkeep /),
    });
    // A global install must not shadow PostgreSQL's own.
    const bins = await readdir(join(folder, 'node_modules', '.bin'));
    expect(bins).toContain('walkeep');
    expect(bins).not.toContain('pg_receivewal');
    expect(existsSync(join(folder, 'node_modules', 'typescript'))).toBe(false);
  });

  test('has exact types of all it exports, for a module in strict mode', async (context) => {
    const { folder } = await installed(context);
    const { output, program } = await compile(folder, 'module', 'module', ESM_CONSUMER);
    expect(output).toBe('');
    const { stdout, stderr } = await run(process.execPath, [program], folder);
    expect(stdout + stderr).toBe('WK_CONNECTION\ntrue\nWK_CONNECTION zeros\n');
  });

  test('can be used from CommonJS', async (context) => {
    const { folder } = await installed(context);
    const { output, program } = await compile(folder, 'cjs', 'commonjs', COMMONJS_CONSUMER);
    expect(output).toBe('');
    expect(await run(process.execPath, [program], folder)).toMatchObject({
      code: 0,
      stdout: '16/B374D848\n',
    });
  });

  test('pleases publint, and its types are those of what it exports', async (context) => {
    const { tarball } = await installed(context);
    const packed = await readFile(tarball);
    const { messages } = await publint({ pack: { tarball: packed.buffer as ArrayBuffer } });
    expect(messages).toEqual([]);
    const { problems } = (await checkPackage(
      createPackageFromTarballData(new Uint8Array(packed)),
    )) as { problems: { kind: string; resolutionKind?: string }[] };
    // Said of every package without CommonJS: require() of it is for Node.js 22 and later, and what
    // knows no "exports" (Node.js 10) knows no modules.
    const ours = problems.filter(
      ({ kind, resolutionKind }) => kind !== 'CJSResolvesToESM' && resolutionKind !== 'node10',
    );
    expect(ours).toEqual([]);
  });

  /** Bundles `source` as one file in a package of its own, and runs it. */
  async function bundled(folder: string, name: string, format: 'esm' | 'cjs', source: string) {
    const dir = join(folder, name);
    await mkdir(dir);
    // Another package's version, which is none of ours.
    await writeFile(join(dir, 'package.json'), '{ "name": "other", "version": "7.8.9" }');
    const outfile = join(dir, 'out', format === 'esm' ? 'bundle.mjs' : 'bundle.cjs');
    const { errors } = await build({
      stdin: { contents: source, resolveDir: folder },
      ...{ bundle: true, platform: 'node', target: 'node20', format, outfile, minify: true },
      // What is loaded only where it is needed.
      external: ['@bokuweb/zstd-wasm', 'age-encryption'],
      logLevel: 'silent',
      ...(format === 'esm' && {
        // esbuild's own advice for CommonJS packages in an ESM bundle.
        banner: {
          js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
        },
      }),
    });
    expect(errors).toEqual([]);
    const { code, stdout, stderr } = await run(process.execPath, [outfile], dir);
    return { code, stdout, stderr, size: readFileSync(outfile).length };
  }

  const VERIFY = `
    import { ship, takeBackup, planRestore, WalReceiver, WalVerifier, formatLsn, parseLsn } from 'walkeep';
    const verifier = new WalVerifier({ startLsn: parseLsn('0/1000000'), segmentSize: 2 ** 24 });
    const receiver = new WalReceiver({ connection: 'host=/nowhere user=u', directory: '.', reconnect: false });
    receiver.run().catch((e) => console.log(e.code, verifier.feed(Buffer.alloc(8192))?.kind, formatLsn(1n)));
    void [ship, takeBackup, planRestore];
  `;

  test.for(['esm', 'cjs'] as const)('runs bundled as %s', async (format, context) => {
    const { folder } = await installed(context);
    expect(await bundled(folder, `bundle-${format}`, format, VERIFY)).toMatchObject({
      ...{ code: 0, stdout: 'WK_CONNECTION zeros 0/1\n', stderr: '' },
    });
  });

  test.for(['walkeep', 'walkeep/wal'])(
    'leaves little in a bundle that needs little of %s',
    async (from, context) => {
      const { folder } = await installed(context);
      const source = `import { formatLsn } from '${from}'; console.log(formatLsn(0x16b374d848n));`;
      const result = await bundled(folder, `small-${from.replace('/', '-')}`, 'esm', source);
      expect(result).toMatchObject({ code: 0, stdout: '16/B374D848\n' });
      expect(result.size).toBeLessThan(10_000);
    },
  );

  test('compiles nothing for who asks for names and positions', async (context) => {
    const { folder } = await installed(context);
    const source = `
      WebAssembly.Module = class { constructor() { throw new Error('compiled'); } };
      const { formatLsn, segmentFileName } = await import('walkeep/wal');
      console.log(formatLsn(1n), segmentFileName(1, 5n, 2 ** 24));`;
    const node = await run(process.execPath, ['--input-type=module', '-e', source], folder);
    expect(node).toMatchObject({ code: 0, stdout: '0/1 000000010000000000000005\n' });
  });
});
