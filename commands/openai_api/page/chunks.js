// One request to the endpoint, and the chunks of its stream.

/** What is shown to the user in one line. */
export class Failure extends Error {}

/** Return the names of the models that are served. Throws Failure. */
export async function models() {
  const reply = await asked("v1/models", {});
  return (await reply.json()).data.map((model) => model.id);
}

/** Yield the chunks of a stream. Aborting the signal closes the connection, and the server stops writing. */
export async function* chunks(body, signal) {
  const reply = await asked("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw signal.aborted ? error : new Failure("The connection was lost in the middle of the answer.");
    });
    if (done) throw new Failure("The server ended in the middle of the answer.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Failure(chunk.error.message);
      yield chunk;
    }
  }
}

async function asked(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch (error) {
    throw options.signal?.aborted ? error : new Failure("The server does not answer. Is it still running?");
  }
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => null);
  throw new Failure(said?.error?.message ?? `The server refused with status ${reply.status}.`);
}
