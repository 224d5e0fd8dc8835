// Checks the dependencies: the lock file and the licences always, known vulnerabilities where the
// registry answers. Fails only on findings: a package without a checksum, from an odd source, with
// an unknown licence or an install script among those that users get, or with a vulnerability of
// high or critical severity among them. No network is no finding.
//
// node .ci/audit.mjs [DIRECTORY]   AUDIT_TIMEOUT: milliseconds for each question, default 60000
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Licences that the package may bring with it under its own, which is MIT. */
const LICENCES = new Set([
  ...['0BSD', 'Apache-2.0', 'BlueOak-1.0.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'MIT'],
]);
const SEVERITIES = ['critical', 'high', 'moderate', 'low', 'info'];
const SERIOUS = ['critical', 'high'];

const directory = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url));
const timeout = Number(process.env.AUDIT_TIMEOUT ?? 60_000);
const findings = [];

checkLockFile();
await checkVulnerabilities();
for (const finding of findings) console.log(`audit: FOUND ${finding}`);
process.exitCode = findings.length > 0 ? 1 : 0;

function checkLockFile() {
  const { packages } = JSON.parse(readFileSync(join(directory, 'package-lock.json'), 'utf8'));
  const entries = Object.entries(packages).filter(([path]) => path !== '');
  const production = entries.filter(([, entry]) => !entry.dev);
  for (const [path, { integrity, resolved, link }] of entries) {
    if (link) findings.push(`${path}: a link to a directory`);
    if (!/^sha512-/.test(integrity ?? '')) findings.push(`${path}: no sha512 checksum`);
    // Without an address it comes from whatever registry is configured, and must have the checksum.
    if (resolved !== undefined && !resolved.startsWith('https://')) {
      findings.push(`${path}: does not come over https`);
    }
  }
  for (const [path, { license, hasInstallScript }] of production) {
    if (!isAllowed(license)) findings.push(`${path}: licence ${license ?? 'not stated'}`);
    if (hasInstallScript) findings.push(`${path}: runs a script when it is installed`);
  }
  console.log(
    `audit: lock file: ${entries.length} packages have checksums, ${production.length} are for users` +
      (findings.length > 0
        ? `, ${findings.length} findings`
        : ', licences and scripts are in order'),
  );
}

/** An SPDX expression of alternatives; of others only what is one licence. */
function isAllowed(licence) {
  if (typeof licence !== 'string') return false;
  return licence
    .replace(/^\((.*)\)$/, '$1')
    .split(' OR ')
    .some((one) => LICENCES.has(one));
}

async function checkVulnerabilities() {
  const counts = await npmAudit('--omit=dev');
  if (typeof counts === 'string') {
    console.log(`audit: vulnerabilities: not known, ${counts}`);
    return;
  }
  console.log(`audit: vulnerabilities in what users get: ${describe(counts)}`);
  const serious = SERIOUS.reduce((sum, severity) => sum + (counts[severity] ?? 0), 0);
  if (serious > 0) findings.push(`${serious} serious vulnerabilities: npm audit --omit=dev`);
  const all = await npmAudit();
  const text = typeof all === 'string' ? `not known, ${all}` : describe(all);
  console.log(`audit: vulnerabilities with development tools: ${text}`);
}

function describe(counts) {
  const found = SEVERITIES.filter((severity) => counts[severity] > 0);
  return found.map((severity) => `${counts[severity]} ${severity}`).join(', ') || 'none';
}

/** Numbers by severity, or why there are none. Never rejects, never takes longer than `timeout`. */
function npmAudit(...args) {
  return new Promise((resolve) => {
    let output = '';
    const child = spawn('npm', ['audit', '--json', '--fetch-retries=0', ...args], {
      cwd: directory,
      // Its own process group, so that all of it can be ended.
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const timer = setTimeout(() => {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It has just ended.
      }
      resolve(`the registry did not answer within ${timeout} ms`);
    }, timeout);
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    child.on('error', () => {
      clearTimeout(timer);
      resolve('npm could not be run');
    });
    child.on('close', () => {
      clearTimeout(timer);
      let counts;
      try {
        counts = JSON.parse(output).metadata?.vulnerabilities;
      } catch {
        // No report.
      }
      const complete = counts && SEVERITIES.every((s) => Number.isInteger(counts[s]));
      resolve(complete ? counts : 'the registry gives no report');
    });
  });
}
