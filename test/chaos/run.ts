import { Random } from '../simulation/random.js';
import type { Major } from '../support/postgres.js';
import { comparedWithServers, missingAfterRecovery, verified } from './checks.js';
import { EVENTS, type EventName } from './events.js';
import type { OwnExit } from './supervisor.js';
import { World } from './world.js';

export interface ChaosOptions {
  seed: number;
  events: number;
  major: Major;
  /** Some starts of the receiver compress, others do not. */
  compress: boolean;
  say: (text: string) => void;
}

/** What one run did and found. */
export interface Tally {
  seed: number;
  major: Major;
  seconds: number;
  events: number;
  byKind: Record<string, number>;
  notes: Record<string, number>;
  confirmed: number;
  unconfirmed: number;
  lost: number;
  timelines: number;
  segments: number;
  segmentsOnlyInPgWal: number;
  compressed: number;
  histories: number;
  replaced: number;
  differentFill: number;
  /** Files that differ from the servers'; none may. */
  differing: string[];
  findings: string[];
  receiverRestarts: number;
  /** Receivers that ended by themselves and were started again by the supervisor. */
  ownExits: Record<string, number>;
  /** Ends after which the service file has no new start: a person would have to look. */
  manualSteps: number;
}

/** Exit code of damage that stays: `RestartPreventExitStatus` of the service file. */
const NO_RESTART = 3;

/** Kinds in random order, each as often as the others. */
function* deck(random: Random): Generator<EventName, never> {
  for (;;) {
    const names = Object.keys(EVENTS) as EventName[];
    while (names.length > 0) yield names.splice(random.below(names.length), 1)[0] as EventName;
  }
}

/**
 * Disturbs a cluster and its receiver at random, then asks: does all go on by itself, is every
 * confirmed commit in the archive, and is the archive what the servers wrote. The schedule follows
 * the seed; what the processes make of it does not.
 */
export async function runChaos(options: ChaosOptions): Promise<Tally> {
  const { seed, major, say } = options;
  const began = performance.now();
  const random = new Random(seed);
  await using world = await World.create(options, random, say);
  const byKind = await disturb(world, options.events, say);
  const archived = await quiet(world, say);
  // The end: everything at once, in the middle of commits.
  await world.settle(50);
  const stopped = world.clients.stop();
  const { cluster, supervisor } = world;
  await cluster.primary.kill9();
  await supervisor.hold('SIGKILL');
  await stopped;
  const confirmed = await world.log.read();
  const origin = cluster.primary;
  if (cluster.standby) await cluster.retire(cluster.standby);
  await cluster.keepSegments(origin);

  for (const exit of supervisor.ownExits) say(`a receiver ended by itself: …${exit.said}`);
  say(`${archived} is archived; verify, compare, recover`);
  const { clean, findings } = await verified(world.directory);
  if (!clean && findings.length === 0) findings.push('walkeep verify ended with an error');
  const compared = comparedWithServers(world.directory, cluster);
  const recovery = await missingAfterRecovery(origin, world.backup, world.directory, confirmed);
  return {
    seed,
    major,
    seconds: Math.round((performance.now() - began) / 1000),
    events: Object.values(byKind).reduce((sum, n) => sum + n, 0),
    byKind,
    notes: world.notes,
    confirmed: confirmed.length,
    unconfirmed: world.clients.unconfirmed,
    lost: recovery.lost.length,
    timelines: recovery.timeline - 1,
    segments: compared.equal,
    segmentsOnlyInPgWal: compared.equalInPgWal,
    compressed: compared.compressed,
    histories: compared.histories,
    replaced: compared.replaced,
    differentFill: compared.differentFill,
    differing: compared.problems,
    findings,
    receiverRestarts: supervisor.restarts,
    ownExits: counted(supervisor.ownExits),
    manualSteps: supervisor.ownExits.filter((exit) => exit.code === NO_RESTART).length,
  };
}

/** Plays the events; each has healed before the next one begins. */
async function disturb(
  world: World,
  events: number,
  say: (text: string) => void,
): Promise<Record<string, number>> {
  const { random } = world;
  const byKind: Record<string, number> = {};
  const next = deck(random);
  const light = (Object.keys(EVENTS) as EventName[]).filter((n) => EVENTS[n].weight === 'light');
  const play = async (name: EventName): Promise<void> => {
    byKind[name] = (byKind[name] ?? 0) + 1;
    await EVENTS[name].run(world);
  };
  let done = 0;
  await world.settle(20);
  while (done < events) {
    const names = [next.next().value];
    // Trouble comes in twos.
    const company = EVENTS[names[0] as EventName].weight !== 'alone' && random.chance(0.3);
    if (company && done + 1 < events) names.push(random.pick(light));
    done += names.length;
    const began = performance.now();
    const what = names.join(' + ');
    try {
      await Promise.all(names.map(play));
      await world.writeWal(random.below(3_000_000));
      await world.settle(20 + random.below(200));
    } catch (cause) {
      throw new Error(
        `after ${what}: ${(cause as Error).message}\n${world.supervisor.said.slice(-3000)}`,
        { cause },
      );
    }
    say(`${done} ${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
  }
  return byKind;
}

/** All has come to rest: the servers have archived what they finished. Gives the last segment. */
async function quiet(world: World, say: (text: string) => void): Promise<string> {
  await world.settle(20);
  say('commits are confirmed; waiting for the archiver');
  const { primary } = world;
  const segment = await primary.switchWal();
  await primary.waitArchived(segment, 120_000);
  return segment;
}

function counted(exits: readonly OwnExit[]): Record<string, number> {
  const result: Record<string, number> = {};
  for (const { code, error } of exits) {
    const what = `${code}: ${error.replace(/\d[0-9A-F/]*/g, 'N')}`;
    result[what] = (result[what] ?? 0) + 1;
  }
  return result;
}
