// A form that sends a call to this server, and what comes back: status, time, headers and body.

import { h, say } from "./element.js";
import * as format from "./format.js";
import { resolved } from "./schema.js";

export function trial(document_, path, verb, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) => resolved(document_, parameter));
  const fields = parameters.map((parameter) => ({ parameter, input: input(parameter) }));
  const body = operation.requestBody ? new Body(document_, operation) : undefined;
  const button = h("button", { type: "submit", text: "Send" });
  const place = h("div", { "aria-live": "polite" });
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    place.replaceChildren(await sent(path, verb, fields, body));
    button.disabled = false;
  };
  const [needed, optional] = [true, false].map((required) => fields.filter(({ parameter }) => Boolean(parameter.required) === required).map(asked));
  return h("form", { novalidate: true, "aria-label": `${verb.toUpperCase()} ${path}`, onsubmit: submit },
    needed.length ? h("div", { class: "choices" }, needed) : null, body?.root,
    optional.length ? h("details", {}, h("summary", { text: `Optional: ${optional.length}` }), h("div", { class: "choices" }, optional)) : null,
    h("div", { class: "actions" }, button), place);
}

function asked({ parameter, input: control }) {
  return h("label", { class: "field" }, h("span", { text: parameter.name }), control, h("span", { class: "hint", text: parameter.description }));
}

/// What a path needs is filled in; what is optional is left to whoever wants it.
function input({ required, example, schema }) {
  const value = required && example !== undefined ? String(example) : "";
  return h("input", { type: "text", value, spellcheck: "false", autocomplete: "off", placeholder: required ? null : [schema.type].flat().join(" or ") });
}

/// The body of a call: JSON as it is written, or a file of another type.
class Body {
  /// An example too long to be shown, in place of the text.
  #held;

  constructor(document_, { operationId, requestBody }) {
    const types = Object.keys(requestBody.content);
    this.type = h("select", { onchange: () => this.#show() }, types.map((type) => h("option", { value: type, text: type })));
    this.text = h("textarea", { rows: "10", spellcheck: "false", id: `body-${operationId}`, oninput: () => this.#hold(undefined) });
    this.file = h("input", { type: "file", "aria-label": "Body from a file" });
    this.note = h("p", { class: "hint", role: "status" });
    const chosen = types.length > 1 ? h("label", { class: "field" }, h("span", { text: "Content type" }), this.type) : null;
    this.root = h("div", {}, chosen ? h("div", { class: "choices" }, chosen) : null,
      h("div", { class: "over-text" }, h("label", { for: `body-${operationId}`, text: `Body${requestBody.required ? "" : " (optional)"}` })),
      this.text, this.file, this.note);
    const [example] = Object.values(requestBody.content[types[0]].examples ?? {}).map((one) => resolved(document_, one).value);
    if (example !== undefined) this.#fill(example);
    this.#show();
  }

  #fill(example) {
    const text = pretty(example);
    this.#hold(text.length > SHOWN_MAX ? text : undefined);
    if (this.#held === undefined) this.text.value = text;
    else say(this.note, `The example has ${format.bytes(text.length)}, too many to show. Write here to send something else.`);
  }

  #hold(text) {
    this.#held = text;
    say(this.note, "");
  }

  #show() {
    this.text.hidden = !this.isJson;
    this.file.hidden = this.isJson;
  }

  get isJson() {
    return this.type.value.endsWith("json") && !this.type.value.includes("binary");
  }

  get content() {
    return this.isJson ? (this.#held ?? this.text.value) : (this.file.files[0] ?? "");
  }
}

async function sent(path, verb, fields, body) {
  const given = fields.filter(({ input: control }) => control.value !== "").map(({ parameter, input: control }) => ({ ...parameter, value: control.value }));
  const named = given.filter(({ in: where }) => where === "path").reduce((to, { name, value }) => to.replace(`{${name}}`, encodeURIComponent(value)), path);
  const url = new URL(`..${named}`, document.baseURI);
  given.filter(({ in: where }) => where === "query").forEach(({ name, value }) => url.searchParams.set(name, value));
  const headers = Object.fromEntries(given.filter(({ in: where }) => where === "header").map(({ name, value }) => [name, value]));
  if (body?.content) headers["content-type"] = body.type.value;
  const began = performance.now();
  try {
    const options = { method: verb.toUpperCase(), headers, cache: "no-store", redirect: "manual" };
    const response = await fetch(url, body?.content ? { ...options, body: body.content } : options);
    const bytes = await response.arrayBuffer();
    return result(response, bytes, (performance.now() - began) / 1000);
  } catch (error) {
    return h("div", { class: "problem", role: "alert" }, h("p", { class: "lead", text: "It was not sent, or not answered." }), h("p", { text: error.message }));
  }
}

function result(response, bytes, took) {
  const type = response.headers.get("content-type") ?? "";
  const told = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  return h("div", { class: "result" },
    h("p", { class: `lead${response.ok ? "" : " bad"}` }, h("output", { text: `${response.status} ${response.statusText}` }),
      ` in ${format.seconds(took)}, ${format.bytes(bytes.byteLength)}`),
    h("pre", { class: "body", tabindex: "0", "aria-label": "Body of the answer", role: "region", text: readable(type, bytes) }),
    h("details", {}, h("summary", { text: "Headers" }), h("pre", { tabindex: "0", text: told })));
}

function readable(type, bytes) {
  if (!bytes.byteLength) return "(empty)";
  if (!type.includes("json") && !type.startsWith("text/")) return `(${format.bytes(bytes.byteLength)} of ${type})`;
  const text = new TextDecoder().decode(bytes);
  if (text.length > SHOWN_MAX || type.includes("binary")) return `${text.slice(0, SHOWN_MAX)}\n…`;
  try {
    return pretty(JSON.parse(text));
  } catch {
    return text;
  }
}

/// JSON with a line for each field, but not for each number.
function pretty(value) {
  return JSON.stringify(value, null, 1).replace(/\[\s+(?=[-\d"tf][^[\]{}]*\])[^[\]{}]*\]/g, (list) => list.replaceAll(/\s*\n\s*/g, " ").replace("[ ", "[").replace(" ]", "]"));
}

/// Characters of a body that is shown as text.
const SHOWN_MAX = 100_000;
