// The entry: whose calls are shown, the server's or a model's, by tag.

import { shownCall } from "./call.js";
import { empty, h, mark, say } from "./element.js";
import { theme } from "./theme.js";

const main = document.getElementById("main");
const subject = document.getElementById("subject");
let turn = 0;

/// The document of what the address names: of the server, of a model, or of a version of it.
function wanted() {
  const [kind, model, version] = location.hash.replace(/^#\/?/, "").split("/");
  if (kind !== "models" || !model) return { name: "", path: "openapi.json" };
  const of = version ? `v2/models/${model}/versions/${version}` : `v2/models/${model}`;
  return { name: version ? `${model}/${version}` : model, path: `${of}/openapi.json` };
}

async function go(isFirst) {
  const mine = (turn += 1);
  const { name, path } = wanted();
  pulse("starting", "Loading");
  const [document_] = await Promise.all([read(path).catch((error) => error), isFirst ? models() : undefined]);
  if (mine !== turn) return;
  choose(name);
  document.getElementById("source").href = `../${path}`;
  const title = h("h1", { tabindex: "-1" });
  if (document_ instanceof Error) {
    say(title, "No document");
    main.replaceChildren(title, h("div", { class: "panel" }, empty("There is nothing to show", document_.message)));
    pulse("lost", "No document");
  } else {
    show(document_, title, name);
    pulse("live", "Loaded");
  }
  document.title = `${title.textContent} · Kinglet`;
  // Who has just come hears the page from its start.
  if (!isFirst) {
    title.focus();
    scrollTo(0, 0);
  }
}

function show(document_, title, name) {
  const { info, openapi, tags, paths } = document_;
  say(title, name ? `Calls of ${info.title.replace(/^.*?: /, "")}` : "Calls of the server");
  say(document.getElementById("about"), `kinglet ${info.version}, OpenAPI ${openapi}`);
  const calls = Object.entries(paths).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, operation]) => ({ path, verb, operation })));
  const groups = tags.map(({ name: tag, description }) => {
    const own = calls.filter(({ operation }) => operation.tags.includes(tag));
    if (!own.length) return null;
    const id = `tag-${tag.replaceAll(/[^A-Za-z0-9]+/g, "-")}`;
    return h("section", { class: "group", "aria-labelledby": id }, h("h2", { id, text: tag }),
      h("p", { class: "hint", text: description }), own.map((call) => shownCall(document_, call)));
  });
  const hint = info.description ? h("p", { class: "hint first", text: info.description }) : null;
  main.replaceChildren(title, ...[hint, ...groups].filter(Boolean));
}

/// All models of the repository; of one that does not answer there is no document.
async function models() {
  const { models: names } = await read("v2/models").catch(() => ({ models: [] }));
  subject.replaceChildren(h("option", { value: "", text: "the server" }), ...names.map((value) => h("option", { value, text: value })));
}

/// A version that the address names is no model of the list.
function choose(name) {
  if (name && ![...subject.options].some(({ value }) => value === name)) subject.append(h("option", { value: name, text: name }));
  subject.value = name;
}

async function read(path) {
  const response = await fetch(new URL(`../${path}`, document.baseURI), { cache: "no-store" });
  const told = await response.json();
  if (!response.ok) throw new Error(told.error);
  return told;
}

function pulse(state, text) {
  const part = document.getElementById("pulse");
  mark(part, "data-state", state);
  say(part, text);
}

theme();
subject.addEventListener("change", () => {
  location.hash = subject.value ? `#/models/${subject.value}` : "#/";
});
addEventListener("hashchange", () => go(false));
// The address names what is shown, so that a link cannot move the focus by itself.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
go(true);
