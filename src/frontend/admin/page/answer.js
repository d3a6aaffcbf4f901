// An answer of a model as a person wants it: classes with bars, numbers in brief, what it took, and all of it as it came.

import { bar, h, table } from "./element.js";
import * as format from "./format.js";

/// `{ answer, took, joules, source }`, the time in seconds as the browser saw it; `classes` are names of outputs that
/// hold classes.
export function shown({ answer, took, joules, source }, classes) {
  const report = answer.parameters ?? {};
  const facts = [
    ["Round trip", format.seconds(took), "seen by this browser"],
    ["In the model", format.seconds(report.kinglet_compute_us / 1e6), `${format.seconds(report.kinglet_queue_us / 1e6)} in the queue`],
    ["Batch", format.number(report.kinglet_batch_size), `sent for: ${report.kinglet_batch_reason ?? format.NONE}`],
    ["Energy", format.joules(joules), joules === undefined ? "no source of energy is configured" : `source: ${source}`],
  ];
  const tiles = facts.map(([name, value, note]) =>
    h("div", { class: "tile" }, h("dt", { text: name }), h("dd", { class: "value", text: value }), h("dd", { class: "note", text: note })));
  const outputs = answer.outputs.map((output) => (classes.has(output.name) ? ranked(output) : brief(output)));
  const raw = h("details", {}, h("summary", { text: "The answer as it came" }), h("pre", { tabindex: "0", text: shortened(answer) }));
  return h("div", { class: "answer" }, h("dl", { class: "tiles" }, tiles), outputs, raw);
}

/// The classes of each row, highest first.
function ranked({ name, shape, data }) {
  const width = shape.at(-1);
  const rows = [];
  for (let i = 0; i < data.length && rows.length < ROWS_SHOWN; i += width) rows.push(data.slice(i, i + width).map(scored));
  const lists = rows.map((classes, i) => {
    const chances = likely(classes.map(({ score }) => score));
    const best = classes.slice(0, CLASSES_SHOWN).map(({ score, label }, at) =>
      h("li", { class: at ? "" : "best" }, h("span", { class: "label", text: label }), bar(chances[at], "line-1"),
        h("output", { text: format.percent(chances[at]) }), h("small", { text: `score ${format.number(score)}` })));
    return h("div", {}, rows.length > 1 ? h("h4", { text: `Row ${i + 1}` }) : null, h("ol", { class: "classes" }, best));
  });
  return h("section", { class: "output" }, h("h3", { text: name }), lists, more(data.length / width, ROWS_SHOWN, "rows"));
}

/// "score:index:label" of the classification extension.
function scored(text) {
  const [score, index, ...label] = text.split(":");
  return { score: Number(score), label: label.join(":") || `class ${index}` };
}

/// Probabilities stay as they are; other scores become some.
function likely(scores) {
  const whole = scores.reduce((sum, score) => sum + score, 0);
  if (Math.abs(whole - 1) < 0.01 && scores.every((score) => score >= 0)) return scores;
  const highest = Math.max(...scores);
  const parts = scores.map((score) => Math.exp(score - highest));
  const all = parts.reduce((sum, part) => sum + part, 0);
  return parts.map((part) => part / all);
}

/// A tensor's first values, and the reach of its numbers.
function brief({ name, datatype, shape, data }) {
  const values = data ?? [];
  const numbers = values.filter((value) => typeof value === "number");
  const least = numbers.reduce((low, value) => Math.min(low, value), Infinity);
  const most = numbers.reduce((high, value) => Math.max(high, value), -Infinity);
  const reach = numbers.length ? `from ${format.number(least)} to ${format.number(most)}` : "";
  const first = values.slice(0, VALUES_SHOWN).map((value, index) =>
    h("tr", {}, h("th", { scope: "row", text: String(index) }), h("td", { class: "figure", text: typeof value === "number" ? String(value) : JSON.stringify(value) })));
  return h("section", { class: "output" }, h("h3", { text: name }),
    h("p", { class: "hint", text: [datatype, format.shape(shape), reach].filter(Boolean).join(" · ") }),
    table(`First values of ${name}`, [["Index"], ["Value", "figure"]], h("tbody", {}, first)), more(values.length, VALUES_SHOWN, "values"));
}

const more = (all, shown, what) => (all > shown ? h("p", { class: "hint", text: `and ${format.number(all - shown)} ${what} more` }) : null);

function shortened(answer) {
  const text = JSON.stringify(answer, null, 1);
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}\n…` : text;
}

const ROWS_SHOWN = 8;
const CLASSES_SHOWN = 5;
const VALUES_SHOWN = 8;
const TEXT_MAX = 20_000;
