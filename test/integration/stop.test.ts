import { describe, expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import type { CliRun } from '../support/cli.js';
import { archiveDirectory, PROGRAMS, receive, unverified } from '../support/receiving.js';
import {
  backend,
  type Script,
  type ScriptedConnection,
  ScriptedServer,
} from '../support/scripted-server.js';
import { freePort } from '../support/server-config.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const START = 0x3000000n;

async function expectStop(run: CliRun, name: NodeJS.Signals): Promise<void> {
  const began = performance.now();
  expect({ ...(await run.stop(name)), stderr: run.stderr }).toEqual({
    code: 0,
    signal: null,
    stderr: expect.not.stringMatching(
      /error: (?!.*(Connection refused|reset by peer|closed the connection))/,
    ),
  });
  // 3 seconds for the server, and what a slow machine needs; the next limit would be a minute.
  expect(performance.now() - began).toBeLessThan(20_000);
}

/** The peer stops to answer at some point: the script stays there for ever. */
const silent: Record<string, (c: ScriptedConnection) => Promise<void>> = {
  'the startup packet': async (c) => {
    await waitFor(() => Object.keys(c.startup).length > 0);
  },
  'the first command': async (c) => {
    await c.accept();
    await c.nextQuery();
  },
  IDENTIFY_SYSTEM: async (c) => {
    await c.accept();
    while (!/IDENTIFY/.test(await c.nextQuery())) {
      c.send(backend.resultSet({ data_directory_mode: '0700' }));
    }
  },
  START_REPLICATION: async (c) => {
    await c.accept();
    await c.serve();
  },
  CopyDone: async (c) => {
    await c.startStream();
    c.send(backend.xlogData(START, Buffer.alloc(8192, 1)));
    await c.waitStatus((s) => s.write >= START);
  },
};

describe.each(PROGRAMS)('%s stops within seconds with exit code 0', (program) => {
  test.each(Object.keys(silent))('while the server does not answer %s', async (point) => {
    let reached = false;
    const script: Script = async (c) => {
      await silent[point]?.(c);
      reached = true;
    };
    const server = keep(await ScriptedServer.listen(script));
    const run = keep(
      receive(
        archiveDirectory(),
        server.conninfo({ sslmode: 'disable' }),
        ['-s', '1', ...unverified(program)],
        {
          program,
        },
      ),
    );
    await waitFor(() => reached, { what: point });
    await expectStop(run, program === 'walkeep' ? 'SIGTERM' : 'SIGINT');
    expect(server.errors).toEqual([]);
  });

  test('in the middle of a message, and of a stream', async () => {
    const message = backend.xlogData(START, Buffer.alloc(8192, 1));
    const server = keep(
      await ScriptedServer.listen(async (c) => {
        await c.startStream();
        c.send(message.subarray(0, 4000));
        await c.waitStatus((s) => s.write >= START);
        await c.nextOf('c');
        c.send(message.subarray(4000), backend.copyDone(), backend.commandComplete('COPY 0'));
        c.send(backend.commandComplete('START_STREAMING'), backend.readyForQuery());
      }),
    );
    const run = keep(
      receive(
        archiveDirectory(),
        server.conninfo({ sslmode: 'disable' }),
        ['-s', '1', ...unverified(program)],
        {
          program,
        },
      ),
    );
    const connection = await server.connection(0);
    await connection.waitStatus((s) => s.write >= START);
    await expectStop(run, 'SIGINT');
    expect(connection.received.at(-1)?.type).toBe('X');
  });
});

test('walkeep stops while it waits to connect again', async () => {
  const port = await freePort();
  const run = keep(receive(archiveDirectory(), `host=127.0.0.1 port=${port} user=postgres`));
  // Late tries are seconds apart.
  await waitFor(() => (run.stderr.match(/to try again/g)?.length ?? 0) >= 6);
  await expectStop(run, 'SIGTERM');
});

test('pg_receivewal stops while it waits to connect again', async () => {
  const server = await ScriptedServer.listen(async (c) => {
    await c.startStream();
    c.send(backend.xlogData(START, Buffer.alloc(100, 1)));
    await c.waitStatus((s) => s.write >= START);
    c.reset();
  });
  const run = keep(
    receive(archiveDirectory(), server.conninfo({ sslmode: 'disable' }), ['-s', '1'], {
      program: 'pg_receivewal',
    }),
  );
  await run.waitForOutput(/disconnected; waiting 5 seconds to try again/);
  await server.close();
  await expectStop(run, 'SIGINT');
});

test.each(PROGRAMS)('%s goes on after a hangup that nohup keeps from it', async (program) => {
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.startStream();
      c.send(backend.xlogData(START, Buffer.alloc(100, 1)));
      await c.nextOf('c');
      c.send(backend.copyDone(), backend.commandComplete('COPY 0'));
      c.send(backend.commandComplete('START_STREAMING'), backend.readyForQuery());
    }),
  );
  const args = ['-s', '1', ...unverified(program)];
  const conninfo = server.conninfo({ sslmode: 'disable' });
  const run = keep(receive(archiveDirectory(), conninfo, args, { program }));
  const connection = await server.connection(0);
  await connection.waitStatus((s) => s.write === START + 100n);
  run.child.kill('SIGHUP');
  connection.send(backend.xlogData(START + 100n, Buffer.alloc(100, 2)));
  await connection.waitStatus((s) => s.write === START + 200n);
  expect(await run.stop('SIGINT')).toEqual({ code: 0, signal: null });
});
