/** How one check went; `unknown`: what it needs is not visible to this user. */
export type CheckStatus = 'ok' | 'warn' | 'fail' | 'unknown';

/** One line of the report. */
export interface CheckResult {
  /** What was looked at, for example `slot`. */
  check: string;
  status: CheckStatus;
  message: string;
  /** What to do about it. */
  hint?: string;
}

/** Results about one subject. */
export type Judge = {
  ok(message: string): CheckResult;
  warn(message: string, hint: string): CheckResult;
  fail(message: string, hint: string): CheckResult;
  unknown(message: string, hint?: string): CheckResult;
};

/** Makes results of one check. */
export function judge(check: string): Judge {
  const result =
    (status: CheckStatus) =>
    (message: string, hint?: string): CheckResult => ({
      check,
      status,
      message,
      ...(hint === undefined ? {} : { hint }),
    });
  return {
    ok: result('ok'),
    warn: result('warn'),
    fail: result('fail'),
    unknown: result('unknown'),
  };
}

/** Of several the worst; what is unknown says nothing of its own. */
export function worst(results: readonly CheckResult[]): Exclude<CheckStatus, 'unknown'> {
  if (results.some((r) => r.status === 'fail')) return 'fail';
  return results.some((r) => r.status === 'warn') ? 'warn' : 'ok';
}
