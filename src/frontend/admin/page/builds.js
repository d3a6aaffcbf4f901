// The table of models, versions and variants, and the calls that load and unload a model.

import { h, keyed, mark, say, table } from "./element.js";
import * as format from "./format.js";
import { keyOf } from "./history.js";
import { post } from "./server.js";

/// The address of a build's own view.
export const viewOf = ({ model, version, variant }) =>
  `#/models/${[model, version, variant].filter(Boolean).map(encodeURIComponent).join("/")}`;

/// A word for a build's state, with a colour. What is unavailable without a reason was never asked for.
export function badge(build) {
  const root = h("span", { class: "badge" });
  const update = ({ state, reason }) => {
    const word = state === "UNAVAILABLE" && (!reason || reason === "unloaded") ? "not loaded" : state.toLowerCase();
    mark(root, "data-state", word);
    say(root, word);
  };
  update(build);
  return { root, update };
}

/// The table with `update()`.
export function buildsTable(server) {
  const body = h("tbody");
  const heads = [
    ["Model"], ["State"], ["Requests", "figure"], ["p50", "figure wide"], ["p99", "figure"], ["Queue", "figure wide"],
    ["Joules per inference", "figure wide"], ["Memory", "figure wide"], ["Control", "wide"],
  ];
  return {
    root: table("Models, versions and variants", heads, body),
    update: () => keyed(body, server.builds, keyOf, (build) => row(server, build), (part, build) => part.update(build)),
  };
}

function row(server, build) {
  const state = badge(build);
  const reason = h("small", { class: "reason" });
  const figure = (kind = "") => h("td", { class: `figure ${kind}` });
  const cells = { rate: figure(), p50: figure("wide"), p99: figure(), queue: figure("wide"), joules: figure("wide"), memory: figure("wide") };
  const control = build.variant ? h("span", { class: "soft", text: "with its version" }) : loadButton(server, build);
  const name = h("a", { href: viewOf(build), text: build.variant || build.model });
  const version = build.variant ? `variant of version ${build.version}` : build.version ? `version ${build.version}` : "";
  const head = h("th", { scope: "row", class: build.variant ? "inner" : "" }, name, h("small", { text: version }));
  const root = h("tr", {}, head, h("td", {}, state.root, reason), Object.values(cells), h("td", { class: "wide" }, control.root ?? control));
  return {
    root,
    update(build) {
      const key = keyOf(build);
      const recent = server.history.recent(key);
      const ready = build.state === "READY";
      state.update(build);
      say(reason, build.reason);
      say(cells.rate, ready ? format.perSecond(recent.rate) : format.NONE);
      say(cells.p50, format.seconds(recent.p50));
      say(cells.p99, format.seconds(recent.p99));
      say(cells.queue, ready ? format.number(recent.queue) : format.NONE);
      say(cells.joules, format.joules(recent.joulesPerRequest));
      say(cells.memory, ready ? format.bytes(server.history.value(key, "kinglet_model_memory_bytes")) : format.NONE);
      control.update?.(build);
    },
  };
}

/// Loads a model or takes it out of service, where the server does that by request.
export function loadButton(server, build) {
  const button = h("button", { type: "button", class: "small", onclick: () => press() });
  const problem = h("small", { class: "reason", role: "status" });
  const root = h("div", { class: "control" }, button, problem);
  let now = build;
  let busy = "";
  const isReady = () => now.state === "READY";
  const update = (build) => {
    now = build;
    const verb = isReady() ? "Unload" : "Load";
    say(button, busy || verb);
    button.disabled = !server.isExplicit || Boolean(busy) || ["LOADING", "UNLOADING"].includes(now.state);
    mark(button, "aria-label", `${verb} ${now.model}`);
    mark(button, "title", server.isExplicit ? null : whyNot(server));
  };
  const press = async () => {
    const unloads = isReady();
    if (unloads && !(await confirmed(now.model))) return;
    busy = unloads ? "Unloading…" : "Loading…";
    say(problem, "");
    update(now);
    try {
      await post(`v2/repository/models/${encodeURIComponent(now.model)}/${unloads ? "unload" : "load"}`);
    } catch (error) {
      say(problem, error.message);
    }
    busy = "";
    await server.poll();
    update(now);
    button.focus();
  };
  update(build);
  return { root, update };
}

/// Why models are not loaded from here.
export function whyNot(server) {
  const mode = server.facts?.control;
  if (!mode || mode === "explicit") return "";
  const does = { poll: "follows what changes on disk", demand: "loads what requests ask for" };
  const now = does[mode] ?? "serves what was there at its start";
  return `Models are not loaded or unloaded from here: repository.control is "${mode}", so the server ${now}. With "explicit" it does what it is asked.`;
}

/// Asks whether a model shall go.
function confirmed(model) {
  return new Promise((resolve) => {
    const title = h("h2", { id: "ask", text: `Unload ${model}?` });
    const told = h("p", { text: "Requests on their way are still answered; later ones are refused until it is loaded again." });
    const button = (text, value, kind) => h("button", { type: "button", class: kind, text, onclick: () => dialog.close(value) });
    const buttons = h("div", { class: "buttons" }, button("Keep it", "", "plain"), button("Unload", "yes", "danger"));
    const dialog = h("dialog", { "aria-labelledby": "ask" }, title, told, buttons);
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
