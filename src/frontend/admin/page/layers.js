// What every layer of a model takes on one core, with which kernel, and what leaving zeros out is worth. The server runs the
// model for it, so that a person asks.

import { bar, empty, h, panel, say, table } from "./element.js";
import * as format from "./format.js";
import { modelPath, read } from "./server.js";

/// A panel for the build that `build()` names.
export function layers(build) {
  const status = h("p", { class: "hint", role: "status" });
  const place = h("div", {}, empty("Not measured yet", "The model is run a few times on made-up rows, on one core, as a batch would be."));
  const measure = async () => {
    button.disabled = true;
    say(status, "Measuring…");
    try {
      show(place, await read(path(build())));
      say(status, "");
    } catch (error) {
      say(status, error.message);
    }
    button.disabled = false;
  };
  const button = h("button", { type: "button", text: "Measure layers", onclick: measure });
  return panel("Layers", h("div", { class: "actions" }, button, status), place);
}

function path({ model, version, variant }) {
  const query = new URLSearchParams({ extent: EXTENT });
  if (variant) query.set("variant", variant);
  return `${modelPath(model, version)}/layers?${query}`;
}

function show(place, { layers, memory_bytes }) {
  const time = layers.reduce((sum, layer) => sum + layer.time_us, 0);
  const macs = layers.reduce((sum, layer) => sum + layer.macs, 0);
  const sparse = layers.filter(({ weights }) => weights);
  const kept = sparse.reduce((sum, { weights }) => sum + weights.nonzero, 0);
  const all = sparse.reduce((sum, { weights }) => sum + weights.all, 0);
  const told = [
    `${layers.length} layers`,
    `${format.seconds(time / 1e6)} a row`,
    `${format.count(macs)} multiply-accumulates`,
    `${format.bytes(memory_bytes)} in memory`,
    sparse.length ? `${sparse.length} of them without their zeros: ${format.percent(kept / all)} of those weights are left` : "none with zeros left out",
  ];
  const heads = [
    ["Layer"], ["Kernel"], ["Type", "wide"], ["Time", "figure"], ["Beside the longest", "wide"], ["Of the core's peak", "figure wide"],
    ["Weights left", "figure"], ["Speed-up, possible", "figure wide"],
  ];
  const longest = Math.max(...layers.map((layer) => layer.time_us));
  const rows = layers.map((layer) => row(layer, longest));
  place.replaceChildren(h("p", { class: "facts", text: told.join(" · ") }), table("Layers", heads, h("tbody", {}, rows)));
}

function row({ name, kernel, datatype, shape, macs, time_us, peak_gmacs, weights }, longest) {
  const peak = peak_gmacs ? macs / (time_us * 1e3) / peak_gmacs : undefined;
  const gained = weights?.speed_up ? `${format.number(weights.speed_up)}×, ${format.number(weights.speed_up_max)}×` : format.NONE;
  const figure = (text, kind = "") => h("td", { class: `figure ${kind}`, text });
  return h("tr", {},
    h("th", { scope: "row" }, name, h("small", { text: format.shape(shape) })),
    h("td", {}, h("code", { text: kernel })),
    h("td", { class: "wide", text: datatype }),
    figure(format.seconds(time_us / 1e6)),
    h("td", { class: "wide" }, bar(time_us / longest, "line-1")),
    figure(macs ? format.percent(peak) : format.NONE, "wide"),
    figure(weights ? format.percent(1 - weights.sparsity) : "all"),
    figure(gained, "wide"));
}

/// Of axes that a signature leaves open besides the batch.
const EXTENT = 16;
