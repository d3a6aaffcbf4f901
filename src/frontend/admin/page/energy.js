// Joules and watts: where they come from, what they are worth, and where they go. Absent is absent, never zero.

import { chart } from "./chart.js";
import { bar, empty, h, keyed, panel, say, table, tile } from "./element.js";
import * as format from "./format.js";
import { ALL, ATTRIBUTED, keyOf } from "./history.js";

/// What stands beneath a figure of joules.
export function joulesNote(history, { watts }) {
  const { source } = history;
  if (!source) return "no source of energy is configured";
  const told = `${source.source}, ${source.quality}`;
  return Number.isFinite(watts) ? `${format.watts(watts)} · ${told}` : told;
}

export function energy(server) {
  const read = tile("Read from the source");
  const models = tile("For models");
  const each = tile("Per inference");
  const origin = tile("Source");
  const stage = tile("Builds chosen for");
  const watts = chart("Watts for models", [["attributed", "line-2"]], format.watts, { idle: "No inference yet" });
  const none = empty("No source of energy is configured",
    "No counter of joules could be read and no model of the processor was chosen. Nothing is shown rather than a guess.");
  const split = h("ul", { class: "split" });
  const body = h("tbody");
  const rows = table("Energy by model", [["Model"], ["Watts", "figure"], ["Joules per inference", "figure"], ["Joules since the start", "figure"]], body);
  const some = h("div", {},
    h("dl", { class: "tiles" }, [each, models, read, origin, stage].map((tile) => tile.root)),
    h("div", { class: "alone" }, watts.root), h("div", { class: "pair" }, panel("Where it goes", split), panel("By model", rows)));
  const update = () => {
    const { history } = server;
    const { source } = history;
    none.hidden = Boolean(source);
    some.hidden = !source;
    if (!source) return;
    const recent = history.recent();
    each.set(format.joules(recent.joulesPerRequest), "last 10 s");
    models.set(format.watts(recent.watts), "attributed to batches");
    read.set(format.watts(sum(history.watts("kinglet_energy_joules_total"))), domains(history));
    origin.set(source.source, [source.quality, source.coefficients].filter(Boolean).join(" · "));
    const chosen = history.stage;
    stage.set(chosen?.stage ?? "–", chosen?.limit ? `limit ${format.watts(chosen.limit)}` : "no limit of power");
    watts.draw(history.columns(ALL, ["watts"]), !history.value(ALL, ATTRIBUTED));
    parts(split, history);
    const builds = history.watts(ATTRIBUTED);
    keyed(body, builds, ({ labels }) => keyOf(labels), row, (part, build) => part.update(build, history));
  };
  return { title: "Energy", root: h("div", {}, none, some), update };
}

/// The shares of all that was accounted for.
function parts(list, history) {
  const all = PARTS.map(([name, metric, kind]) => ({ name, kind, watts: sum(history.watts(metric)) }))
    .filter(({ watts }) => Number.isFinite(watts));
  const whole = all.reduce((total, { watts }) => total + watts, 0);
  list.replaceChildren(...all.map(({ name, kind, watts }) =>
    h("li", {}, h("span", { text: name }), bar(watts / whole, kind), h("output", { text: format.watts(watts) }))));
}

function row({ labels }) {
  const [watts, each, joules] = [0, 1, 2].map(() => h("td", { class: "figure" }));
  const name = [labels.model, labels.version && `version ${labels.version}`, labels.variant].filter(Boolean);
  return {
    root: h("tr", {}, h("th", { scope: "row" }, name[0], h("small", { text: name.slice(1).join(", ") })), watts, each, joules),
    update(build, history) {
      const key = keyOf(build.labels);
      say(watts, format.watts(build.watts));
      say(each, format.joules(history.recent(key).joulesPerRequest));
      say(joules, format.joules(history.value(key, ATTRIBUTED)));
    },
  };
}

const domains = (history) =>
  history.watts("kinglet_energy_joules_total").map(({ labels, watts }) => `${labels.domain} ${format.watts(watts)}`).join(", ");

const sum = (series) => (series.length ? series.reduce((total, { watts }) => total + watts, 0) : undefined);

/// What the energy of a window is split into.
const PARTS = [
  ["Models", ATTRIBUTED, "line-1"],
  ["Overhead of the server", "kinglet_energy_overhead_joules_total", "line-2"],
  ["Other processes", "kinglet_energy_other_joules_total", "line-3"],
  ["Idle", "kinglet_energy_idle_joules_total", "quiet"],
];
