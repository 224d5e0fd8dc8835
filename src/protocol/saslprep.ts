/** RFC 3454 B.1, commonly mapped to nothing. */
const MAPPED_TO_NOTHING =
  /\u034F|[\uFE00-\uFE0F]|[\u180B-\u180D]|\u200D|[\u00AD\u1806\u200C\u2060\uFEFF]/gu;
/** RFC 3454 C.1.2, non-ASCII spaces. */
const NON_ASCII_SPACE = /[\u00A0\u1680\u2000-\u200B\u202F\u205F\u3000]/gu;
/** RFC 4013 section 2.3: control, private use, non-characters, surrogates, tagging and the like. */
const PROHIBITED =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  /\u0340|\u0341|[\u0000-\u001F\u007F-\u009F\u06DD\u070F\u180E\u200C-\u200F\u2028-\u202E\u2060-\u2063\u206A-\u206F\u2FF0-\u2FFB\uFEFF\uFFF9-\uFFFD\u{1D173}-\u{1D17A}\u{E0001}\u{E0020}-\u{E007F}\p{Co}\p{Cn}\p{Cs}]/u;
/** RFC 3454 D.1, characters of right-to-left scripts. */
const RIGHT_TO_LEFT =
  /[\u05BE\u05C0\u05C3\u05D0-\u05EA\u05F0-\u05F4\u061B\u061F\u0621-\u063A\u0640-\u064A\u066D-\u066F\u0671-\u06D5\u06DD\u06E5\u06E6\u06FA-\u06FE\u0700-\u070D\u0710\u0712-\u072C\u0780-\u07A5\u07B1\u200F\uFB1D\uFB1F-\uFB28\uFB2A-\uFBB1\uFBD3-\uFD3D\uFD50-\uFD8F\uFD92-\uFDC7\uFDF0-\uFDFC\uFE70-\uFE74\uFE76-\uFEFC]/u;

/**
 * Prepares a password as the server did when it stored it (RFC 4013 SASLprep): ASCII stays as it
 * is, and a password that the profile prohibits is used unchanged (as in PostgreSQL's
 * pg_saslprep callers). "Unassigned" means Node's Unicode tables, not those of Unicode 3.2.
 */
export function prepareScramPassword(password: string): string {
  if (/^[\0-\x7F]*$/.test(password)) return password;
  const mapped = password.replace(NON_ASCII_SPACE, ' ').replace(MAPPED_TO_NOTHING, '');
  const prepared = mapped.normalize('NFKC');
  if (mapped === '' || PROHIBITED.test(prepared) || violatesBidi(prepared)) return password;
  return prepared;
}

/** RFC 3454 section 6: right-to-left text must begin and end so, and hold no left-to-right letter. */
function violatesBidi(text: string): boolean {
  const chars = [...text];
  if (!chars.some((c) => RIGHT_TO_LEFT.test(c))) return false;
  if (!RIGHT_TO_LEFT.test(chars[0] ?? '') || !RIGHT_TO_LEFT.test(chars.at(-1) ?? '')) return true;
  return chars.some((c) => /\p{L}/u.test(c) && !RIGHT_TO_LEFT.test(c));
}
