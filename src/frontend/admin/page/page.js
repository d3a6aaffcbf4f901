// The entry: which view is shown, the connection, and the theme.

import { h, mark, say } from "./element.js";
import { energy } from "./energy.js";
import * as format from "./format.js";
import { model } from "./model.js";
import { overview } from "./overview.js";
import { Server } from "./server.js";
import { theme } from "./theme.js";
import { trial } from "./trial.js";

const server = new Server();
const main = document.getElementById("main");
let view;

/// Views by the first part of the address behind the #; each makes `{ title, root, update }`.
const VIEWS = { "": overview, models: model, energy, try: trial };

function go(isFirst) {
  const [name = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  const make = VIEWS[name] ?? overview;
  const title = h("h1", { tabindex: "-1" });
  view = make(server, rest);
  say(title, view.title);
  main.replaceChildren(title, view.root);
  document.title = `${view.title} · Kinglet`;
  const shown = view.view ?? (name || "overview");
  for (const link of document.querySelectorAll("nav [data-view]")) {
    mark(link, "aria-current", link.dataset.view === shown ? "page" : null);
  }
  update();
  // Who reads with ears hears which view this is; who has just come hears the page from its start.
  if (!isFirst) {
    title.focus();
    scrollTo(0, 0);
  }
}

function update() {
  view.update();
  const { facts, history } = server;
  say(document.getElementById("about"), facts ? `${facts.name} ${facts.version}, up for ${format.span(history.uptime)}` : "");
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/// The connection: a word in the head, and a bar while there is none.
function connection() {
  const pulse = document.getElementById("pulse");
  const lost = document.getElementById("lost");
  mark(pulse, "data-state", server.state);
  say(pulse, { live: "Live", lost: "Lost", starting: "Connecting" }[server.state]);
  const isLost = server.state === "lost";
  document.documentElement.classList.toggle("is-lost", isLost);
  lost.hidden = !isLost;
  // Told once: a countdown would be read out every time.
  if (!isLost) return;
  say(lost, server.refusal
    ? `The server does not let this page read: ${server.refusal}.`
    : "The server does not answer. What is shown is the last that it told; this page goes on asking.");
}

theme();
addEventListener("hashchange", () => go(false));
server.addEventListener("reading", update);
server.addEventListener("state", () => {
  connection();
  update();
});
// The address names the view, so that a link cannot move the focus by itself.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
go(true);
server.start();
