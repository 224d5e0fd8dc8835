import { describe, expect, it } from 'vitest';
import { StoreAccessError, StoreUncertainError, UsageError } from '../../src/errors.js';
import { parsePlace, type SshPlace } from '../../src/store/place.js';
import { sshCommand } from '../../src/store/ssh/ssh-store.js';
import { whyEnded } from '../../src/store/ssh/why-ended.js';

const place = (text: string) => parsePlace(text) as SshPlace;

describe('the command that leads to a host', () => {
  it('is the system ssh, without a question and without a terminal', () => {
    expect(sshCommand(place('ssh://backup/srv/wal'), {})).toEqual([
      ...['ssh', '-T', '-o', 'BatchMode=yes', '--', 'backup'],
      "walkeep store --stdio '/srv/wal'",
    ]);
    expect(sshCommand(place('ssh://wal@[::1]:2222/srv'), {})).toEqual([
      ...['ssh', '-T', '-o', 'BatchMode=yes', '-p', '2222', '--', 'wal@::1'],
      "walkeep store --stdio '/srv'",
    ]);
  });

  it('is what the environment says', () => {
    const env = {
      WALKEEP_RSH: `ssh -i '/etc/a key' -o "ProxyJump=x"`,
      WALKEEP_REMOTE_COMMAND: 'sudo -u wal /opt/walkeep',
    };
    const words = sshCommand(place(`ssh://backup/it's`), env);
    expect(words.slice(0, 5)).toEqual(['ssh', '-i', '/etc/a key', '-o', 'ProxyJump=x']);
    expect(words.at(-1)).toBe(`sudo -u wal /opt/walkeep store --stdio '/it'\\''s'`);
    expect(() => sshCommand(place('ssh://b/x'), { WALKEEP_RSH: `ssh 'x` })).toThrow(UsageError);
  });
});

describe('the end of ssh', () => {
  const end = (code: number | null, printed = '') =>
    whyEnded(place('ssh://backup/srv'), 'ssh', { code, printed });

  it('is told from an answer that may change', () => {
    const refused = [
      'wal@backup: Permission denied (publickey).\n',
      'Host key verification failed.\n',
      'ssh: Could not resolve hostname backup: Name or service not known\n',
      'Unable to negotiate with 10.0.0.1: no matching host key type found. Their offer: ssh-rsa\n',
      'command-line: line 0: Bad configuration option: x\n',
    ];
    for (const printed of refused) {
      const error = end(255, printed);
      expect(error).toBeInstanceOf(StoreAccessError);
      expect((error as StoreAccessError).detail).toBe(printed.trim());
    }
    const passing = [
      'ssh: connect to host backup port 22: Connection refused\n',
      'ssh: connect to host backup port 22: Connection timed out\n',
      'ssh: connect to host backup port 22: No route to host\n',
      'ssh: Could not resolve hostname backup: Temporary failure in name resolution\n',
      'kex_exchange_identification: Connection closed by remote host\n',
      'client_loop: send disconnect: Broken pipe\n',
      '',
    ];
    for (const printed of passing) expect(end(255, printed)).toBeInstanceOf(StoreUncertainError);
    expect(end(0)).toBeInstanceOf(StoreUncertainError);
    expect(end(null)).toBeInstanceOf(StoreUncertainError);
    expect(end(127, 'sh: 1: walkeep: not found')).toBeInstanceOf(StoreAccessError);
    expect(end(1, 'walkeep: error: broken')).toBeInstanceOf(StoreAccessError);
  });

  it('shows the last line that says something, and nothing that a terminal obeys', () => {
    const printed =
      'banner\nPermission denied (\x1b[31mpublickey).\r\nWarning: Permanently added x\n\n';
    const { detail } = end(255, printed) as StoreAccessError;
    expect(detail).toBe('Permission denied (\\x1b[31mpublickey).');
  });
});
