/**
 * What PostgreSQL judges as it was entered and the library only once it is normalized: prohibited
 * (U+0340, U+0341), or unknown to Unicode 3.2, though later versions take it apart into what was known.
 */
const REFUSED_AS_ENTERED =
  /[\u0340\u0341\u03F9\u10FC\u1D2C-\u1DBF\u2090-\u209C\u213B-\u213C\u2150-\u2152\u2189\u2C7C-\u2D6F\u321D-\u321E\u3244-\u3250\u327C-\u327E\u32CC-\u32CF\u32FF\u3377-\u337A\u33DE-\u33DF\u33FF\uA69C-\uAB69\uFA2E-\uFA2F\uFA6B-\uFAD9\uFE10-\uFE19\uFE47-\uFE48\u{10781}-\u{1CCF9}\u{1D4C1}\u{1D6A4}-\u{1D6A5}\u{1D7CA}-\u{1D7CB}\u{1E030}-\u{1FBF9}]/u;

/**
 * Prepares a password as the server did when it stored it (RFC 4013 SASLprep, with the tables of
 * Unicode 3.2): ASCII stays as it is, and a password that the profile prohibits is used unchanged,
 * as by the callers of PostgreSQL's pg_saslprep (src/common/saslprep.c). Differs from it for a
 * password that begins or ends with an Arabic or Hebrew presentation form of letter and point.
 */
export async function prepareScramPassword(password: string): Promise<string> {
  if (/^[\0-\x7F]*$/.test(password) || REFUSED_AS_ENTERED.test(password)) return password;
  // Tables of 30 kB, which few passwords need.
  const { saslprep } = await import('@mongodb-js/saslprep');
  try {
    // PostgreSQL calls what nothing is left of prohibited, too.
    return saslprep(password) || password;
  } catch {
    return password;
  }
}
