// The agent's events and answers. The stream is read with fetch, which can bear a token and sees status codes.

const SILENCE_MS = 40_000; // the agent sends a comment every 15 s: after this the stream is dead
const ANSWER_MS = 8_000;
const RETRY_MS = [200, 500, 1000, 2000, 3000];

/** An answer of the agent that is none: `code`, `message`, `hint` as it gave them. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `HTTP status ${status}`);
    this.status = status;
    this.code = error?.code ?? "";
    this.hint = error?.hint ?? "";
  }
}

let token = sessionStorage.getItem("token") ?? "";

export function setToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

function headers() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function refusal(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // a status without a body of ours still says enough
  }
  return new Refused(response.status, body?.error);
}

/** GET a path and give its JSON. Throws Refused for a status, TypeError or AbortError where there was no answer. */
export async function get(path) {
  const response = await fetch(path, { headers: headers(), signal: AbortSignal.timeout(ANSWER_MS), cache: "no-store" });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/**
 * The stream of events, for as long as the page is open.
 * `on.event({id, type, data})`, `on.up()` when a stream begins, `on.down(error)` each time it cannot be had.
 */
export class Feed {
  constructor(on) {
    this.on = on;
    this.last = null; // the last event's id: the stream goes on behind it
    this.failures = 0;
    this.abort = null;
  }

  async run() {
    for (;;) {
      try {
        await this.#stream();
        this.on.down(null);
      } catch (error) {
        this.on.down(error);
        if (error instanceof Refused && error.status === 401) return; // the page asks for a token and calls again
      }
      const pause = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
      this.failures += 1;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** End the stream; `run` begins another. */
  restart() {
    this.abort?.abort();
  }

  async #stream() {
    const abort = (this.abort = new AbortController());
    let timer = setTimeout(() => abort.abort(), ANSWER_MS);
    try {
      const since = this.last === null ? "" : `?since=${encodeURIComponent(this.last)}`;
      const response = await fetch(`v1/events${since}`, {
        headers: { Accept: "text/event-stream", ...headers() },
        signal: abort.signal,
        cache: "no-store",
      });
      if (!response.ok) throw await refusal(response);
      this.failures = 0;
      this.on.up();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE_MS);
        const { value, done } = await reader.read();
        if (done) return;
        const blocks = (rest + value).split(/\r?\n\r?\n/);
        rest = blocks.pop();
        for (const block of blocks) this.#event(block);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #event(block) {
    const data = [];
    for (const line of block.split(/\r?\n/)) {
      if (line.startsWith("data:")) data.push(line.slice(5));
      else if (line.startsWith("id:")) this.last = line.slice(3).trim();
    }
    if (data.length) this.on.event(JSON.parse(data.join("\n")));
  }
}
