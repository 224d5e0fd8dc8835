import { DiskFullError, WalkeepError } from '../../src/errors.js';
import type { FileSystem } from '../../src/files/file-system.js';
import { formatLsn } from '../../src/lsn.js';
import type { VerifyMode } from '../../src/receive/inspector.js';
import type { WalReceiverOptions } from '../../src/receive/options.js';
import { resetArena } from './arena.js';
import {
  checkContinuous,
  checkDisk,
  type Damage,
  openDamages,
  type Promised,
  Violation,
} from './checks.js';
import { faultFor, shortName } from './faults.js';
import { ModelConnection, type OnStatus } from './model-connection.js';
import { ModelServer } from './model-server.js';
import { SEGMENT } from './model-wal.js';
import { MovedFiles } from './moved-files.js';
import { Random } from './random.js';
import { ReceiverProcess } from './receiver-process.js';
import { compressionFor, type Setting, settingOf } from './setting.js';
import { SimulatedDisk } from './simulated-disk.js';
import { type CallFate, SimulatedFs } from './simulated-fs.js';
import { VirtualClock } from './virtual-clock.js';

/** A bug planted on purpose: in the file system's calls, or in what is reported. */
export interface Mutation {
  fs?: (fs: FileSystem) => FileSystem;
  /** The flush position that is reported instead; `kept` outlives connections. */
  flush?: (status: { write: bigint; flush: bigint }, kept: { flush: bigint }) => bigint;
  /** Instead of what is chosen. */
  verify?: VerifyMode;
}

/** What happened in one run. */
export interface Tally {
  crashes: number;
  powerCuts: number;
  faults: number;
  disconnects: number;
  /** Bits flipped on their way. */
  damages: number;
  timelines: number;
  stops: number;
  directWrites: number;
  /** Of them, those of commits, durable at once. */
  syncedWrites: number;
  /** Segments stored compressed, and complete files that another program moved away. */
  compressed: number;
  moved: number;
}

const DIRECTORY = '/archive';
/** Steps of the scheduler that a start takes, and at most so many more until the crash. */
const START_STEPS = 30;
const ROUND_STEPS = 600;
/** Steps within which all WAL must be there once nothing disturbs any more. */
const SETTLE_STEPS = 20_000;
/** And so many starts, should they end by themselves. */
const SETTLE_STARTS = 8;
/** Share of syncs that fail in a process that has faults. */
const SYNC_FAULTS = 0.02;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** One seeded run: a server, a disk, and receiver processes that die and come back. */
export class World {
  readonly tally: Tally = {
    crashes: 0,
    powerCuts: 0,
    faults: 0,
    disconnects: 0,
    damages: 0,
    timelines: 0,
    stops: 0,
    directWrites: 0,
    syncedWrites: 0,
    compressed: 0,
    moved: 0,
  };
  /** What happened last, for the report of a violation. */
  readonly log: string[] = [];
  private readonly random: Random;
  private readonly clock = new VirtualClock();
  private readonly disk = new SimulatedDisk();
  private readonly moved = new MovedFiles();
  private readonly server: ModelServer;
  private readonly promised: Promised = new Map();
  /** Bytes that were damaged on their way and may be stored so. */
  private readonly damages = new Set<Damage>();
  /** In some runs the network damages WAL. All is checked there, and the server keeps its WAL. */
  private readonly damaging: boolean;
  private readonly setting: Setting;
  /** For what plain seeds do not have. */
  private readonly more: Random;
  private readonly mutation: Mutation;
  private fs!: SimulatedFs;
  private process!: ReceiverProcess;
  /** Thrown by what was called from inside the receiver, which would swallow it. */
  private violation: Violation | undefined;
  /** Calls left until the planned crash and fault. */
  private crashIn = 0;
  private crashOnReply = false;
  private faultIn = 0;
  private faultRate = 0;
  /** Faults, lost connections and failovers since the process began: they excuse an error. */
  private disturbed = 0;
  private failures = 0;
  private calm = false;
  private readonly kept = { flush: 0n };

  constructor(seed: number, mutation: Mutation = {}) {
    resetArena();
    this.random = new Random(seed);
    this.mutation = mutation;
    const { setting, random } = settingOf(seed);
    this.setting = setting;
    this.more = random;
    this.server = new ModelServer(this.random, setting);
    this.damaging = this.random.chance(0.4);
  }

  /** Runs through `crashes` crash points and a calm end. @throws Violation */
  async run(crashes: number): Promise<void> {
    const restore = this.clock.install();
    try {
      for (let i = 0; i < crashes; i++) {
        this.begin();
        await this.round();
        this.crash();
        checkDisk(this.disk, this.server, this.moved, this.promised, this.damages);
      }
      await this.settle();
    } finally {
      this.fs.kill();
      this.clock.clear();
      await turn();
      restore();
    }
  }

  // --- processes ---------------------------------------------------------------------------

  private begin(): void {
    const { random } = this;
    this.crashIn = this.calm || random.chance(0.3) ? 0 : random.size(600) * this.pace;
    this.crashOnReply = !this.calm && this.crashIn === 0 && random.chance(0.5);
    this.faultRate = this.calm || random.chance(0.6) ? 0 : random.size(200);
    this.faultIn = this.faultRate > 0 ? random.size(400) : 0;
    this.startProcess();
  }

  private startProcess(): void {
    const { random } = this;
    // What was stored damaged shows when its end comes.
    this.disturbed = openDamages(this.damages, this.server, this.promised).size;
    this.failures = 0;
    this.clock.clear();
    const fs = new SimulatedFs(this.disk, random, (op, name) => this.decide(op, name));
    this.fs = fs;
    fs.onDirectWrite = (synced) => {
      this.tally.directWrites += 1;
      if (synced) this.tally.syncedWrites += 1;
    };
    const { slot } = this.setting;
    const options: WalReceiverOptions = {
      connection: '',
      directory: DIRECTORY,
      // Without a slot only synchronous receivers tell how far they are.
      ...(slot === 'none' ? {} : { slot: 'sim' }),
      synchronous: random.chance(0.7) || slot === 'none',
      compression: compressionFor(this.setting, this.more),
      verify: this.mutation.verify ?? (this.damaging || random.chance(0.7) ? 'strict' : 'off'),
      directIo: random.chance(0.8),
    };
    const files = [...this.disk.names.keys()].filter((name) => !name.startsWith('.'));
    const version = slot === 'unreadable' ? 140000 : 180000;
    this.note(
      `process (${options.compression?.method}) with ${files.sort().map(shortName).join(' ')}`,
    );
    this.process = new ReceiverProcess({
      fs: this.mutation.fs?.(fs) ?? fs,
      options,
      writeReport: random.pick(['slow', 'write'] as const),
      connect: () =>
        new ModelConnection(this.server, random, this.clock, version, (...status) => {
          if (!fs.dead) this.onStatus(...status);
        }),
      onEvent: (event, detail) => {
        if (!fs.dead) this.onEvent(event, detail);
      },
      onRetry: (error) => {
        if (!fs.dead) this.onRetry(error);
      },
    });
  }

  private crash(): void {
    this.fs.kill();
    this.clock.clear();
    this.tally.crashes += 1;
    const power = this.random.chance(0.7);
    this.note(power ? 'power cut' : 'kill -9');
    if (!power) return;
    this.tally.powerCuts += 1;
    this.disk.cutPower(this.random);
  }

  // --- the scheduler -----------------------------------------------------------------------

  private async round(): Promise<void> {
    const { random } = this;
    const last = START_STEPS + random.size(ROUND_STEPS) * this.pace;
    for (let step = 0; step < last; step++) {
      this.step();
      await turn();
      if (this.violation) throw this.violation;
      if (this.fs.dead) return;
      if (this.process.ended && !this.restarted()) return;
    }
  }

  private step(): void {
    const { random, process, fs } = this;
    const connection = process.connection;
    const action = random.weighted({
      complete: fs.waiting > 0 ? 60 : 0,
      deliver: connection?.flowing ? 30 : 0,
      commit: connection?.flowing ? 15 : 0,
      keepalive: connection?.flowing ? 12 : 0,
      grow: this.behind < 2 * SEGMENT ? 8 * this.pace : 0,
      time: 8,
      checkpoint: this.damaging ? 0 : 3,
      damage: this.damaging && !this.calm && connection?.flowing ? 12 : 0,
      breakOff: this.calm ? 0 : 0.4,
      promote: this.calm ? 0 : 0.25,
      stop: this.calm ? 0 : this.setting.busy ? (this.comesAgain ? 4 : 0.4) : 0.1,
      // What is bad in a record that goes on behind a complete file is seen when that is gone.
      move: this.calm || !this.setting.moves || this.damaging ? 0 : 1,
    });
    if (action === 'complete') fs.completeOne();
    else if (action === 'deliver') connection?.deliver();
    else if (action === 'commit') this.commit();
    else if (action === 'keepalive') connection?.keepalive();
    else if (action === 'grow') this.server.grow(random.size(SEGMENT));
    else if (action === 'time') this.clock.advance(random.size(15_000));
    else if (action === 'checkpoint') this.server.checkpoint();
    else if (action === 'damage') this.damage();
    else if (action === 'stop') this.stop();
    else if (action === 'move') this.move();
    else if (action === 'promote') this.promote();
    else this.breakOff('the connection breaks');
  }

  /** A commit on a server whose WAL is here: one read brings it. */
  private commit(): void {
    this.server.grow(this.random.size(20_000));
    this.process.connection?.deliver(true);
  }

  /** Flips a bit of what is sent next; whatever it is part of must not be called good. */
  private damage(): void {
    const { connection } = this.process;
    if (!connection) return;
    connection.damage = (wal, at, start) => {
      const record = wal.recordAt(at);
      // Nobody can tell of a record whose beginning never came.
      const first = Math.min(start, ...[...this.promised.values()].map((p) => p.from));
      if (!record || record.begin < first) return false;
      this.note(
        `damage at ${formatLsn(BigInt(at))}, in the record up to ${formatLsn(BigInt(record.end))} of ${record.wal.id}`,
      );
      this.tally.damages += 1;
      this.disturbed += 1;
      this.damages.add({ at, record });
      return true;
    };
  }

  private stop(): void {
    this.note('stop');
    this.tally.stops += 1;
    this.process.stop();
  }

  private move(): void {
    const taken = this.moved.take(this.disk, this.more);
    this.tally.moved += taken.length;
    if (taken.length > 0) this.note(`moved away: ${taken.map(shortName).join(' ')}`);
  }

  private breakOff(why: string): void {
    this.note(why);
    this.disturbed += 1;
    this.tally.disconnects += 1;
    this.process.connection?.breakOff();
  }

  private promote(): void {
    this.tally.timelines += 1;
    if (this.random.chance(0.5)) {
      // In place: the stream of the old timeline ends in good order.
      this.server.promote(0);
      this.disturbed += 1;
    } else {
      this.server.promote(this.random.size(2 * SEGMENT));
      this.breakOff('failover');
    }
    this.note(`timeline ${this.server.current.id} from ${this.server.current.fork}`);
  }

  /** A process that ended by itself is started again, as a supervisor does it. */
  private restarted(): boolean {
    const { error } = this.process.ended ?? {};
    if (error !== undefined && this.disturbed === 0) {
      throw new Violation(`ended without a cause: ${error instanceof Error ? error.stack : error}`);
    }
    if (error !== undefined && !(error instanceof WalkeepError)) {
      throw new Violation(`ended with an error that is none of ours: ${(error as Error).stack}`);
    }
    if (error) this.note(`ended: ${error.message}`);
    this.fs.kill();
    // Often the power goes just then: nothing of a failed sync must have been believed.
    if (!this.calm && this.random.chance(0.3)) return false;
    this.startProcess();
    return true;
  }

  /** Without further disturbance everything arrives, is acknowledged and complete. */
  private async settle(): Promise<void> {
    this.calm = true;
    this.begin();
    const target = this.server.current.end + SEGMENT;
    while (this.server.current.end < target) this.server.grow(SEGMENT / 4);
    let starts = 0;
    for (let step = 0; !this.settled; step++) {
      if (step === SETTLE_STEPS || starts > SETTLE_STARTS) {
        throw new Violation('does not come to rest');
      }
      if (this.fs.waiting > 0) this.fs.completeOne();
      else if (this.process.connection?.flowing) this.process.connection.deliver();
      if (this.fs.waiting === 0) this.clock.advance(300);
      await turn();
      if (this.violation) throw this.violation;
      if (this.process.ended && this.restarted()) starts += 1;
      const { connection } = this.process;
      if (step % 50 === 49 && connection?.flowing) connection.keepalive();
    }
    checkDisk(this.disk, this.server, this.moved, this.promised, this.damages);
    checkContinuous(this.disk, this.server, this.moved, this.promised);
    this.disk.cutPower(this.random);
    checkDisk(this.disk, this.server, this.moved, this.promised, this.damages);
    checkContinuous(this.disk, this.server, this.moved, this.promised);
  }

  /** WAL comes that was acknowledged before. */
  private get comesAgain(): boolean {
    const { timeline, sent } = this.process.connection?.position ?? { timeline: 0, sent: 0 };
    return sent < (this.promised.get(timeline)?.flushed ?? 0);
  }

  private get pace(): number {
    return this.setting.busy ? 3 : 1;
  }

  /** Bytes that the server has and nobody acknowledged. */
  private get behind(): number {
    const { id, end, fork } = this.server.current;
    return end - (this.promised.get(id)?.flushed ?? fork);
  }

  private get settled(): boolean {
    return this.behind <= 0 && this.fs.waiting === 0;
  }

  // --- what the receiver does --------------------------------------------------------------

  private decide(op: keyof FileSystem, name: string): CallFate | undefined {
    const { random } = this;
    this.clock.now += random.chance(0.002) ? random.size(300) : 0.02;
    if (this.crashIn > 0 && --this.crashIn === 0) {
      this.note(`crash at ${op} ${name}`);
      return { kind: 'crash', when: random.pick(['before', 'after']) };
    }
    if (this.faultRate === 0) return undefined;
    const failsSync = op.includes('sync') && op.startsWith('f') && random.chance(SYNC_FAULTS);
    if (--this.faultIn > 0 && !failsSync) return undefined;
    this.faultIn = random.size(20 * this.faultRate);
    // PostgreSQL's own tools trust close and stat as well.
    if (op === 'closeSync' || op === 'close' || op === 'sizeSync') return undefined;
    this.disturbed += 1;
    this.tally.faults += 1;
    const fate = faultFor(op, random);
    this.note(`${fate.kind === 'errno' ? fate.code : fate.kind} at ${op} ${name}`);
    return fate;
  }

  private onStatus: OnStatus = (wal, start, sent, status) => {
    const { flush: replace } = this.mutation;
    const flushed = Number(replace ? replace(status, this.kept) : status.flush);
    const write = Number(status.write);
    if (write > sent || flushed > sent) {
      this.violation ??= new Violation(
        `replied write ${write}, flush ${flushed}; sent was ${sent} (timeline ${wal.id})`,
      );
    }
    this.server.flushedTo(flushed);
    if (flushed <= start) return;
    const before = this.promised.get(wal.id) ?? { from: start, flushed: 0 };
    // An ancestor's older WAL that comes once more up to the fork: between them nothing was promised.
    if (flushed < before.from) return;
    const from = Math.min(before.from, start);
    this.promised.set(wal.id, { from, flushed: Math.max(before.flushed, flushed) });
    if (flushed <= before.flushed) return;
    this.note(`acknowledged ${formatLsn(BigInt(flushed))} on ${wal.id}`);
    if (this.crashOnReply && this.random.chance(0.05)) {
      this.note('crash behind the reply');
      this.fs.kill();
    }
  };

  private onEvent(event: string, detail: unknown): void {
    const { code, message = '' } = (detail ?? {}) as { code?: string; message?: string };
    if (event === 'segment') {
      const { path } = detail as { path: string };
      if (/[a-z]$/.test(path)) this.tally.compressed += 1;
      this.note(`complete: ${shortName(path)}`);
    }
    if (event !== 'warning') return;
    this.note(`warning ${code}`);
    if (code === 'WK_REFILL') this.violation ??= new Violation('acknowledged WAL was gone');
    if (!this.damaging && message.includes('is damaged in the record')) {
      this.violation ??= new Violation(`good WAL was called bad: ${message}`);
    }
  }

  private onRetry(error: WalkeepError): void {
    this.note(`again after: ${error.message}`);
    if (this.disturbed > 0 || error instanceof DiskFullError) {
      this.disturbed = Math.max(0, this.disturbed - 1);
      this.failures = 0;
      return;
    }
    this.failures += 1;
    if (this.failures > 2) this.violation ??= new Violation(`keeps failing: ${error.stack}`);
  }

  private note(line: string): void {
    const again = line.startsWith('ack') && this.log.at(-1)?.startsWith('ack');
    if (again) this.log.pop();
    this.log.push(line);
    if (this.log.length > 200) this.log.shift();
  }
}
