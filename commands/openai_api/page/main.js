// The form: a question and its settings go to the tuned model, and to the base beside it.

import { models } from "./chunks.js";
import { visible } from "./marks.js";
import { Reply } from "./reply.js";

const BASE = "base"; // the name that serve gives to the model before its training
const of = (id) => document.getElementById(id);
let served = [];
let running = null; // an AbortController while an answer is being written

async function ask() {
  if (running) return;
  const chosen = served.filter((name) => name !== BASE || served.length === 1 || of("both").checked);
  const body = { messages: [{ role: "user", content: of("question").value }] };
  if (of("budget").value) body.thinking_token_budget = of("budget").valueAsNumber;
  if (of("temperature").value) body.temperature = of("temperature").valueAsNumber;
  of("replies").replaceChildren();
  const mine = (running = new AbortController());
  of("stop").disabled = false;
  if (document.activeElement === of("ask")) of("stop").focus(); // a disabled button would lose it
  of("ask").disabled = true;
  await Promise.all(chosen.map((name) => new Reply(of("replies"), name).ask(body, mine.signal)));
  if (running === mine) idle();
}

function idle() {
  running = null;
  of("ask").disabled = false;
  if (document.activeElement === of("stop")) of("ask").focus();
  of("stop").disabled = true;
}

function stop() {
  running?.abort();
}

function newQuestion() {
  stop();
  idle();
  of("replies").replaceChildren();
  of("question").value = "";
  of("question").focus();
}

function listen() {
  of("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  of("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!running) of("form").requestSubmit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  of("stop").addEventListener("click", stop);
  of("new").addEventListener("click", newQuestion);
}

if ("MathMLElement" in window && "TextDecoderStream" in window) {
  of("old").remove();
  of("page").hidden = false;
  listen();
  try {
    served = await models();
    of("beside").hidden = served.length < 2 || !served.includes(BASE);
    document.title = `${visible(served[0])} · Thinkwright`;
  } catch (error) {
    of("ask").disabled = true;
    of("error").textContent = error.message;
  }
  of("question").focus();
}
