// The reply of one model: a card for each thought, the answer under them, and how it ended.

import { chunks, Failure } from "./chunks.js";
import { visible } from "./marks.js";
import { Written } from "./written.js";

const FIRST_WORDS = 48; // characters of a folded thought that are shown, as in chat
const WHY = {
  budget: "thinking was cut by its budget",
  loop: "thinking was in a loop, and was cut",
  limit: "cut off at the limit",
};

/** Return a new element with a class and a text, at the end of another one. */
function add(parent, tag, name, text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return parent.appendChild(element);
}

const seconds = (from, to) => `${((to - from) / 1000).toFixed(1)} s`;

/** A thought. It is folded when it is closed, unless the user has opened or folded it. */
class Thought {
  constructor(parent, number, began) {
    this.began = began;
    this.card = add(parent, "details", "thought");
    this.card.open = true;
    const summary = add(this.card, "summary", "");
    summary.append(`Thought ${number} `);
    this.time = add(summary, "span", "time");
    this.words = add(summary, "span", "words");
    this.written = new Written(add(this.card, "div", "text"));
    this.touched = false;
    summary.addEventListener("click", () => (this.touched = true));
  }

  close(now) {
    this.written.end();
    this.time.textContent = `· ${seconds(this.began, now)}`;
    const text = this.written.text.split(/\s+/u).join(" ");
    const first = Array.from(text).slice(0, FIRST_WORDS).join("");
    this.words.textContent = visible(` · ${first}${first.length < text.length ? "…" : ""}`);
    if (!this.touched) this.card.open = false;
  }
}

export class Reply {
  constructor(parent, model) {
    this.model = model;
    this.section = add(parent, "section", "reply");
    this.section.setAttribute("aria-label", visible(model));
    add(this.section, "h2", "", visible(model));
    this.thoughtsBox = add(this.section, "div", "thoughts");
    this.answerBox = add(this.section, "div", "answer text");
    this.error = add(this.section, "p", "error");
    this.error.setAttribute("role", "alert");
    const foot = add(this.section, "div", "foot");
    this.state = add(foot, "span", "state soft", "waiting");
    this.state.setAttribute("role", "status");
    this.copy = add(foot, "button", "copy", "Copy answer");
    this.copy.type = "button";
    this.copy.hidden = true;
    this.copy.addEventListener("click", () => this._copy());
    this.answer = new Written(this.answerBox);
    this.thoughts = [];
    this.open = null; // the thought that is being written
  }

  /** Ask, and show what is written until its end. It never throws: a failure is shown. */
  async ask(body, signal) {
    const began = performance.now();
    let before = null; // when the last thought was closed
    let end = {};
    try {
      for await (const chunk of chunks({ ...body, model: this.model }, signal)) {
        end.usage = chunk.usage ?? end.usage;
        const choice = chunk.choices[0];
        if (choice === undefined) continue;
        if (choice.finish_reason) end = { ...end, finish: choice.finish_reason, why: choice.ended_by };
        const now = performance.now();
        for (const piece of choice.delta.thoughts ?? []) {
          const thought = (this.thoughts[piece.index] ??= new Thought(
            this.thoughtsBox,
            piece.index + 1,
            before ?? now,
          ));
          this.open = thought;
          thought.written.append(piece.text);
          if (piece.closed) {
            thought.close(now);
            this.open = null;
            before = now;
          }
          this._say("thinking");
        }
        if (choice.delta.content) {
          this.answer.append(choice.delta.content);
          this._say("answering");
        }
        this._draw();
      }
      this._say(ended(end, seconds(began, performance.now())));
    } catch (error) {
      if (signal.aborted) this._say("stopped");
      else {
        this._say("failed");
        this.error.textContent = visible(error instanceof Failure ? error.message : `The page failed: ${error}`);
        if (!(error instanceof Failure)) console.error(error);
      }
    }
    this.over = true;
    this.open?.close(performance.now());
    this.answer.end();
    this.copy.hidden = !this.answer.text;
  }

  /** Draw what is new, once for each picture of the screen. */
  _draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (this.over) return;
      const root = document.scrollingElement;
      const follows = innerHeight + scrollY > root.scrollHeight - 60;
      if (this.open) {
        this.open.written.show();
        this.open.time.textContent = `· ${seconds(this.open.began, performance.now())}`;
      }
      this.answer.show();
      if (follows) scrollTo(0, root.scrollHeight);
    });
  }

  _say(state) {
    if (this.state.textContent !== state) this.state.textContent = state; // it is read aloud when it changes
  }

  async _copy() {
    const copied = await copyText(this.answer.text);
    this.copy.textContent = copied ? "Copied" : "Not copied";
    setTimeout(() => (this.copy.textContent = "Copy answer"), 2000);
  }
}

/** Return how a reply ended, in words. */
function ended({ usage, finish, why }, time) {
  const thinking = usage.completion_tokens_details.reasoning_tokens.toLocaleString("en");
  const tokens = `${usage.completion_tokens.toLocaleString("en")} tokens, ${thinking} of thinking, ${time}`;
  const reason = why === "limit" && finish === "stop" ? "thinking was cut for the answer" : WHY[why];
  return reason === undefined ? tokens : `${tokens}; ${reason}`;
}

/** Copy a text; return whether it worked. Pages that came without encryption from another machine have no clipboard. */
async function copyText(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  const area = add(document.body, "textarea", "");
  area.value = text;
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
