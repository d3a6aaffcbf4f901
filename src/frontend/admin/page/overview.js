// The whole server at a glance, and every model.

import { buildsTable, whyNot } from "./builds.js";
import { chart } from "./chart.js";
import { empty, h, panel, say, tile, tiles } from "./element.js";
import { joulesNote } from "./energy.js";
import * as format from "./format.js";
import { ALL } from "./history.js";

export function overview(server) {
  const rate = tile("Requests");
  const latency = tiles("Latency", ["p50", "p90", "p99"]);
  const queue = tile("Queue");
  const energy = tile("Energy per inference");
  const machine = tile("Processor");
  const idle = "No requests yet";
  const rates = chart("Requests per second", [["answered or refused", "line-1"]], format.perSecond, { idle });
  const spans = chart("Latency", LATENCY, format.seconds, { idle, least: 0.001 });
  const builds = buildsTable(server);
  const why = h("p", { class: "hint" });
  const nothing = empty("No models yet", "The server found none in its repository. ",
    "Lay one out as <model>/<version>/model.onnx, or start with --repository model.onnx.");
  const first = h("p", { class: "hint first" }, "No requests yet: ", h("a", { href: "#/try", text: "try one" }), ".");
  const models = panel("Models", why, nothing, builds.root);
  const root = h("div", {}, first,
    h("dl", { class: "tiles" }, [rate, latency, queue, energy, machine].map((tile) => tile.root)),
    h("div", { class: "pair" }, rates.root, spans.root), models);
  const update = () => {
    const { history } = server;
    const recent = history.recent();
    const isIdle = history.isIdle();
    first.hidden = !isIdle || !server.builds.some(({ state }) => state === "READY");
    rate.set(format.perSecond(recent.rate), failures(recent));
    latency.set([recent.p50, recent.p90, recent.p99].map(format.seconds), "last 10 s, in the server");
    queue.set(format.number(recent.queue), `${format.number(history.value(ALL, "kinglet_in_flight_requests"))} in flight`);
    energy.set(format.joules(recent.joulesPerRequest), joulesNote(history, recent));
    const cores = history.value(ALL, "kinglet_cores");
    machine.set(Number.isFinite(recent.cpu) ? `${format.number(recent.cpu)} cores` : format.NONE,
      `of ${format.number(cores)}; ${format.bytes(history.value(ALL, "process_resident_memory_bytes"))} in memory`);
    rates.draw(history.columns(ALL, ["rate"]), isIdle);
    spans.draw(history.columns(ALL, ["p50", "p90", "p99"]), isIdle);
    const reason = whyNot(server);
    say(why, reason);
    why.hidden = !reason;
    nothing.hidden = server.builds.length > 0;
    builds.root.hidden = !nothing.hidden;
    builds.update();
  };
  return { title: "Overview", root, update };
}

/// What of the requests was not answered with a result.
export function failures({ failed }) {
  if (!Number.isFinite(failed)) return "reading twice makes a rate";
  return failed > 0 ? `${format.perSecond(failed)} refused or failed` : "none refused or failed";
}

/// Lines of a chart of latencies.
export const LATENCY = [["p50", "line-1"], ["p90", "line-2"], ["p99", "line-3"]];
