// Text of a model while it is being written. It becomes text nodes, and formulas become MathML that Temml builds.

import { visible } from "./marks.js";

const LONGEST = 2000; // characters of a formula: what is longer is text, so that no text takes long to read
const SOME = `{1,${LONGEST}}?`;
const GROUPS = "(?:[^{}]|\\{(?:[^{}]|\\{(?:[^{}]|\\{[^{}]{0,99}\\}){0,99}\\}){0,99}\\}){0,199}";
const FORMULA = new RegExp(
  [
    "(?<fence>```)|`[^`\\n]{1,999}`|\\\\\\$", // code, and a dollar that is one
    `\\$\\$(?<dollars>[^$]${SOME})\\$\\$`,
    `\\\\\\[(?<brackets>[^]${SOME})\\\\\\]`,
    `\\\\\\((?<parentheses>[^]${SOME})\\\\\\)`,
    `(?<environment>\\\\begin\\{(?<name>[a-zA-Z]{1,20}\\*?)\\}[^]${SOME}\\\\end\\{\\k<name>\\})`,
    `(?<boxed>\\\\boxed\\{${GROUPS}\\})`,
    `\\$(?<dollar>(?![\\s$])(?:\\\\.|[^$\\\\\\n])${SOME})(?<!\\s)\\$(?![\\d$])`, // not in "$5 and $6"
  ].join("|"),
  "gu",
);
const KEPT = LONGEST + 50; // the last characters, in which a formula may have begun

/** Shows a growing text in an element. `append` takes text, `show` draws it, `end` draws the last of it. */
export class Written {
  constructor(element) {
    this.element = element;
    this.text = ""; // all of it, as it was written
    this.rest = ""; // of which it is not clear yet whether it is a formula
    this.tail = element.appendChild(document.createTextNode(""));
  }

  append(text) {
    this.text += text;
    this.rest += text;
  }

  show(ended = false) {
    const text = this.rest;
    let from = 0; // what is before has its nodes
    let held = false;
    FORMULA.lastIndex = 0;
    for (let found; (found = FORMULA.exec(text)); ) {
      let to = FORMULA.lastIndex;
      if (found.groups.fence) {
        const close = text.indexOf("```", to);
        held = close < 0;
        if (held) {
          this._text(text.slice(from, found.index));
          from = found.index;
          break;
        }
        FORMULA.lastIndex = to = close + 3;
      }
      // The next character may change what it is
      if (to === text.length && !ended) {
        held = true;
        break;
      }
      const [source, display] = formula(found.groups);
      if (source === undefined) continue;
      this._text(text.slice(from, found.index));
      this.element.insertBefore(drawn(source, display, found[0]), this.tail);
      from = to;
    }
    if (!held && text.length - from > KEPT) {
      this._text(text.slice(from, text.length - KEPT));
      from = text.length - KEPT;
    }
    this.rest = text.slice(from);
    this.tail.data = visible(this.rest);
  }

  end() {
    this.show(true);
  }

  _text(text) {
    if (text) this.element.insertBefore(document.createTextNode(visible(text)), this.tail);
  }
}

/** Return the source of the formula that was found, undefined for code, and whether it has lines of its own. */
function formula({ dollars, brackets, environment, parentheses, boxed, dollar }) {
  const own = dollars ?? brackets ?? environment;
  return [own ?? parentheses ?? boxed ?? dollar, own !== undefined];
}

/** Return an element with the formula, or with the text as it was written if Temml cannot read it. */
function drawn(source, display, whole) {
  const element = document.createElement("span");
  try {
    // Without trust: no links, pictures, classes or ids. maxSize in em keeps a rule or a space within sight
    const limits = { trust: false, maxExpand: 500, maxSize: [40, 40], throwOnError: true };
    globalThis.temml.render(visible(source), element, { displayMode: display, ...limits });
    element.title = visible(whole);
  } catch {
    element.replaceChildren(visible(whole));
  }
  return element;
}
