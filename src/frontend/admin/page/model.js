// One build of a model: what it does now, how its batches came about, where the time goes, and what it takes and gives.

import { badge, loadButton, viewOf, whyNot } from "./builds.js";
import { chart } from "./chart.js";
import { bar, empty, h, keyed, mark, panel, say, table, tile, tiles } from "./element.js";
import { joulesNote } from "./energy.js";
import * as format from "./format.js";
import { keyOf } from "./history.js";
import { layers } from "./layers.js";
import { failures, LATENCY } from "./overview.js";
import { modelPath, read } from "./server.js";
import { variants } from "./variants.js";

export function model(server, [name, version, variant = ""]) {
  const find = () => server.builds.find((build) =>
    build.model === name && build.variant === variant && (!version || build.version === version));
  const key = () => keyOf(find() ?? { model: name, version: version ?? "", variant });
  const state = badge({ state: "UNKNOWN" });
  const reason = h("p", { class: "hint" });
  const control = loadButton(server, { model: name, state: "UNKNOWN" });
  const siblings = h("nav", { class: "siblings", "aria-label": "Builds of this model" });
  const trial = h("a", { class: "button", href: `#/try/${encodeURIComponent(name)}${variant ? `/${encodeURIComponent(variant)}` : ""}`, text: "Try it" });
  const live = figures(server, key);
  const spent = stages();
  const batches = batching();
  const choices = variants(server);
  const signature = panel("Signature");
  const missing = empty("No such model", "The repository does not list it. ", h("a", { href: "#/", text: "All models" }), ".");
  const body = h("div", {}, live.root, h("div", { class: "pair" }, batches.root, h("div", { class: "stack" }, spent.root, signature)),
    choices.root, layers(() => ({ model: name, version: find()?.version, variant })));
  const root = h("div", {}, h("div", { class: "actions" }, state.root, trial, control.root), siblings, reason, missing, body);
  let wasReady = false;
  const update = () => {
    const build = find();
    missing.hidden = Boolean(build) || server.state === "starting";
    body.hidden = !build;
    if (!build) return;
    const isReady = build.state === "READY";
    state.update(build);
    control.update(build);
    control.root.hidden = Boolean(variant);
    const told = [build.reason, whyNot(server)].filter(Boolean).join(" ");
    say(reason, told);
    reason.hidden = !told;
    links(siblings, server.builds.filter(({ model }) => model === name), build);
    mark(trial, "hidden", !isReady);
    live.update();
    spent.update(server.history, key());
    batches.update(server.history, key());
    choices.update(build);
    if (isReady && !wasReady) describe(signature, build);
    wasReady = isReady;
  };
  return { title: variant ? `${name}, variant ${variant}` : name, view: "overview", root, update };
}

/// Tiles and charts.
function figures(server, key) {
  const rate = tile("Requests");
  const latency = tiles("Latency", ["p50", "p90", "p99"]);
  const queue = tile("Queue");
  const energy = tile("Energy per inference");
  const memory = tile("Memory");
  const idle = "No requests yet";
  const rates = chart("Requests per second", [["answered or refused", "line-1"]], format.perSecond, { idle });
  const spans = chart("Latency", LATENCY, format.seconds, { idle, least: 0.001 });
  const root = h("div", {}, h("dl", { class: "tiles" }, [rate, latency, queue, energy, memory].map((tile) => tile.root)),
    h("div", { class: "pair" }, rates.root, spans.root));
  const update = () => {
    const { history } = server;
    const recent = history.recent(key());
    const isIdle = history.isIdle(key());
    rate.set(format.perSecond(recent.rate), failures(recent));
    latency.set([recent.p50, recent.p90, recent.p99].map(format.seconds), "last 10 s, in the server");
    queue.set(format.number(recent.queue), `${format.bytes(history.value(key(), "kinglet_queue_bytes"))} waiting`);
    energy.set(format.joules(recent.joulesPerRequest), joulesNote(history, recent));
    memory.set(format.bytes(history.value(key(), "kinglet_model_memory_bytes")),
      `loaded in ${format.seconds(history.value(key(), "kinglet_model_load_duration_seconds"))}`);
    rates.draw(history.columns(key(), ["rate"]), isIdle);
    spans.draw(history.columns(key(), ["p50", "p90", "p99"]), isIdle);
  };
  return { root, update };
}

/// How large batches were, and why each was sent.
function batching() {
  const sizes = h("ol", { class: "bars" });
  const reasons = h("ul", { class: "split" });
  const nothing = empty("No batches yet", "Sizes and reasons appear with the first requests.");
  const some = h("div", {}, h("h3", { text: "Rows of a batch" }), sizes, h("h3", { text: "Why it was sent" }), reasons);
  const update = (history, key) => {
    const { bounds, counts, count, sum } = history.histogram(key, "kinglet_batch_rows");
    nothing.hidden = count > 0;
    some.hidden = count === 0;
    if (!count) return;
    const last = counts.findLastIndex((n) => n > 0);
    const highest = Math.max(...counts);
    const shown = bounds.slice(0, last + 1).map((bound, i) => ({ name: rowsOf(bounds, i), count: counts[i], bound }));
    keyed(sizes, shown, ({ bound }) => bound, column, (part, item) => part.update(item.count, highest));
    const why = history.by(key, "kinglet_batches_total", "reason");
    const list = Object.keys(REASONS).map((name) => ({ name, count: why.get(name) ?? 0 }));
    keyed(reasons, list, ({ name }) => name, ({ name }) => share(name, REASONS[name]), (part, item) =>
      part.update(item.count, count));
    mark(sizes, "aria-label", `Batches by rows, ${format.number(sum / count)} on average`);
  };
  return { root: panel("Batches", nothing, some), update };
}

/// The rows that fall into a bucket of powers of two.
function rowsOf(bounds, i) {
  const [low, high] = [i ? bounds[i - 1] + 1 : 1, bounds[i]];
  if (high === Infinity) return `${low} and more`;
  return low === high ? `${high}` : `${low}–${high}`;
}

function column({ name }) {
  const number = h("output");
  const fill = h("span", { class: "fill" });
  const root = h("li", {}, number, h("span", { class: "pillar", "aria-hidden": "true" }, fill), h("span", { class: "name", text: name }));
  return {
    root,
    update(count, highest) {
      say(number, format.count(count));
      fill.style.height = `${(100 * count) / highest}%`;
      mark(root, "data-none", count === 0);
    },
  };
}

function share(name, told) {
  const number = h("output");
  const line = bar(0, "line-1");
  return {
    root: h("li", {}, h("span", {}, name, h("small", { text: told })), line, number),
    update(count, all) {
      line.firstChild.style.width = `${(100 * count) / all}%`;
      say(number, format.percent(count / all));
    },
  };
}

/// The mean time of a request in each stage.
function stages() {
  const list = h("ul", { class: "split" });
  const nothing = empty("No times yet", "They appear with the first requests.");
  const update = (history, key) => {
    const times = STAGES.map(([stage, told]) => {
      const { sum, count } = history.histogram(key, "kinglet_stage_duration_seconds", { stage });
      return { stage, told, mean: count ? sum / count : 0 };
    });
    const whole = times.reduce((sum, { mean }) => sum + mean, 0);
    nothing.hidden = whole > 0;
    list.hidden = !whole;
    keyed(list, times, ({ stage }) => stage, ({ stage, told }) => share(stage, told), (part, { mean }) => {
      part.update(mean, whole || 1);
      say(part.root.lastChild, format.seconds(mean));
    });
  };
  return { root: panel("Where the time goes", nothing, list), update };
}

/// Links to the other versions and variants, where there are any.
function links(parent, builds, current) {
  parent.hidden = builds.length < 2;
  keyed(parent, builds, keyOf, (build) => h("a", { href: viewOf(build), text: build.variant || `version ${build.version}` }), (link, build) =>
    mark(link, "aria-current", keyOf(build) === keyOf(current) ? "page" : null));
}

async function describe(part, { model, version }) {
  const told = await read(modelPath(model, version)).catch(() => undefined);
  if (!told) return;
  const rows = ["inputs", "outputs"].flatMap((side) => told[side].map(({ name, datatype, shape }) =>
    h("tr", {}, h("th", { scope: "row", text: name }), h("td", { text: side.slice(0, -1) }), h("td", { text: datatype }),
      h("td", {}, h("code", { text: format.shape(shape) })))));
  part.replaceChildren(part.firstChild, table("Signature", [["Tensor"], ["Side"], ["Datatype"], ["Shape"]], h("tbody", {}, rows)));
}

const REASONS = {
  idle: "a core was free and nothing more was waiting",
  full: "it held as many rows as a batch may",
  delay: "its oldest request had waited for company long enough",
  deadline: "a request in it could not wait longer",
};
const STAGES = [
  ["decode", "bytes to tensors"],
  ["queue", "waiting for a batch"],
  ["gather", "requests into one batch"],
  ["compute", "the model itself"],
  ["encode", "tensors to bytes"],
];
