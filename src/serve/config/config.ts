import type { CompressionOption } from '../../receive/options.js';
import type { MemberSlotKeeper } from '../../server/member-slot.js';

/** What a child is told of its server: all of it, as JSON. */
export interface ServerConfig {
  name: string;
  connection: string;
  passwordFile?: string;
  directory: string;
  slot?: string;
  ensureSlot: boolean;
  synchronous: boolean;
  compression: CompressionOption;
  members?: { hosts?: readonly string[]; slots: MemberSlotKeeper };
}

/** Where something is answered by HTTP. */
export interface Listen {
  host: string;
  port: number;
}

/** A valid configuration with its defaults. */
export interface ServeConfig {
  control?: { socket: string };
  metrics?: Listen;
  servers: readonly ServerConfig[];
}
