// Marks for control, bidirectional and invisible characters, as visible.py makes them: a test compares the two.

const HIDDEN =
  "\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u034f\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u115f\\u1160" +
  "\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0e\\ufeff\\uffa0" +
  "\\ufff0-\\ufffb\\ud800-\\udfff\\u{110bd}\\u{110cd}\\u{13430}-\\u{1343f}\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}" +
  "\\u{e0000}-\\u{e0fff}";
// Joiners stay between characters of scripts and emoji that are written with them, as in Persian, Hindi and families
const JOINED = "(?<=[^\\0-\\u02ff\\u2000-\\u206f])[\\u200c\\u200d](?=[^\\0-\\u02ff\\u2000-\\u206f])";
const FIND = new RegExp(`${JOINED}|(?<hidden>[${HIDDEN}])`, "gu");

/** Return the text with a mark for each hidden character: ␛, or ⟨U+202E⟩. Line ends and tabs stay. */
export function visible(text) {
  return text.replace(FIND, (found, ...rest) => {
    if (rest.at(-1).hidden === undefined) return found;
    const code = found.codePointAt(0);
    return code < 32
      ? String.fromCodePoint(0x2400 + code)
      : `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}
