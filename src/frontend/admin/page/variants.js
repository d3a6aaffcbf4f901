// The builds that may answer requests for a version: what each is worth, what a row costs it, how often it was chosen and why.

import { viewOf } from "./builds.js";
import { h, keyed, panel, say, table } from "./element.js";
import * as format from "./format.js";
import { keyOf } from "./history.js";
import { modelPath, read } from "./server.js";

/// A panel with `update()`, hidden for versions without variants.
export function variants(server) {
  const body = h("tbody");
  const hint = h("p", { class: "hint" });
  const root = panel("Builds to choose from", hint, table("Builds to choose from", HEADS, body));
  let isReading = false;
  const update = async ({ model, version }) => {
    const builds = server.builds.filter((build) => build.model === model && build.version === version);
    root.hidden = builds.length < 2;
    const isReady = builds.some(({ variant, state }) => !variant && state === "READY");
    if (root.hidden || !isReady || isReading || server.state !== "live") return;
    isReading = true;
    // Costs are learned from every batch, so that they are read as often as the rest; without an answer the last stay.
    const told = await read(`${modelPath(model, version)}/variants`).catch(() => undefined);
    isReading = false;
    if (!told) return;
    const { source } = server.history;
    say(hint, `Time and energy are those of one row run by itself: measured at load, then learned from every batch. ${
      source ? `Energy: ${source.source}, ${source.quality}.` : "Energy is not known: no source is configured."}`);
    const all = told.builds.map((build) => ({ ...build, model, version, variant: build.variant ?? "" }));
    const asked = all.reduce((sum, build) => sum + chosen(server.history, build).count, 0);
    keyed(body, all, keyOf, row, (part, build) => part.update(build, chosen(server.history, build), asked));
  };
  return { root, update };
}

/// Requests that a build was chosen for since the server's start. Its series begin with the first one, so that absent is none.
function chosen(history, build) {
  const why = history.by(keyOf(build), "kinglet_variant_choices_total", "reason");
  return { why, count: [...why.values()].reduce((sum, count) => sum + count, 0) };
}

function row(build) {
  const figure = (kind = "") => h("td", { class: `figure ${kind}` });
  const [accuracy, time, energy, memory, count] = [figure(), figure(), figure(), figure("wide"), figure()];
  const reasons = h("small", { class: "reason" });
  const name = h("a", { href: viewOf(build), text: build.variant || "own build" });
  return {
    root: h("tr", {}, h("th", { scope: "row" }, name), accuracy, time, energy, memory, count, h("td", {}, reasons)),
    update({ accuracy: share, memory_bytes, costs = [], reason }, { why, count: times }, asked) {
      const point = costs.find(({ rows }) => rows === 1);
      say(accuracy, format.percent(share));
      say(time, format.seconds(per1000(point?.milliseconds)));
      say(energy, format.joules(per1000(point?.millijoules)));
      say(memory, format.bytes(memory_bytes));
      say(count, asked ? `${format.count(times)} (${format.percent(times / asked)})` : format.count(times));
      say(reasons, reason ?? [...why].map(([name, times]) => `${name} ${format.count(times)}`).join(", "));
    },
  };
}

/// From thousandths. What is not known is null, and not zero.
const per1000 = (value) => (value ?? NaN) / 1e3;

const HEADS = [
  ["Build"], ["Accuracy", "figure"], ["Time of a row", "figure"], ["Energy of a row", "figure"], ["Memory", "figure wide"],
  ["Chosen since the start", "figure"], ["Why"],
];
