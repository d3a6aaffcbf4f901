// The server: one poll for all that is live, calls for what a person asks, and what to do while it is away.

import { History } from "./history.js";
import { parse } from "./metrics.js";

/// An answer that is no success, in the server's own words.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/// Everything is relative to the page, so that it may stand beneath any path of a proxy.
export async function call(path, options = {}) {
  const response = await fetch(new URL(`../${path}`, document.baseURI), { cache: "no-store", ...options });
  if (!response.ok) {
    const text = await response.text();
    throw new Refused(response.status, messageOf(text) || `status ${response.status}`);
  }
  return response;
}

export const read = async (path) => (await call(path)).json();
export const post = (path, body) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body ?? {}) });

/// The path of a model, or of one version of it.
export function modelPath(model, version) {
  const path = `v2/models/${encodeURIComponent(model)}`;
  return version ? `${path}/versions/${encodeURIComponent(version)}` : path;
}

/// Tells what is live to whoever listens: "reading" after each poll, "state" when the connection changes.
export class Server extends EventTarget {
  history = new History();
  /// Lines of the repository index.
  index = [];
  /// Name, version and control mode.
  facts = undefined;
  /// starting, live or lost.
  state = "starting";
  /// What the server said, where it is there but does not let the page read.
  refusal = "";
  #failures = 0;
  #timer = undefined;
  #turn = 0;

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.poll();
    });
    this.poll();
  }

  /// Reads now; the next reading follows by itself, but not of a page that nobody sees.
  async poll() {
    clearTimeout(this.#timer);
    const turn = (this.#turn += 1);
    const ok = await this.#read();
    // Another poll began meanwhile and goes on.
    if (turn !== this.#turn) return;
    const wait = ok ? PERIOD : Math.min(WAIT_MAX, 2 ** Math.min(this.#failures - 1, 6));
    this.#enter(ok ? "live" : "lost");
    if (document.hidden && ok) return;
    this.#timer = setTimeout(() => this.poll(), wait * 1000);
  }

  async #read() {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    try {
      const [text, index] = await Promise.all([
        call("metrics", { signal }).then((response) => response.text()),
        call("v2/repository/index", { method: "POST", signal }).then((response) => response.json()),
      ]);
      const anew = this.history.add(parse(text), Date.now() / 1000);
      if (anew || !this.facts) this.facts = await read("ui/server");
      this.index = index;
      this.#failures = 0;
      this.dispatchEvent(new CustomEvent("reading", { detail: { anew } }));
      return true;
    } catch (error) {
      this.refusal = error instanceof Refused ? error.message : "";
      this.#failures += 1;
      return false;
    }
  }

  #enter(state) {
    const changed = state !== this.state;
    this.state = state;
    if (changed || state === "lost") this.dispatchEvent(new Event("state"));
  }

  get isExplicit() {
    return this.facts?.control === "explicit";
  }

  /// Builds as the index has them: a line per version, one per variant of it.
  get builds() {
    return this.index.flatMap(({ name, version, state, reason, variants = [] }) => [
      { model: name, version: version ?? "", variant: "", state, reason },
      ...variants.map((variant) => ({ model: name, version, variant: variant.name, state: variant.state, reason: variant.reason })),
    ]);
  }
}

function messageOf(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return text.slice(0, 200);
  }
}

/// Seconds between two readings, and at most between two attempts.
const PERIOD = 2;
const WAIT_MAX = 15;
const TIMEOUT_MS = 5000;
