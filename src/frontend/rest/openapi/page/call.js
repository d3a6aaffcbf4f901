// One call: what it takes and answers, and a form to send it.

import { h } from "./element.js";
import { resolved, written } from "./schema.js";
import { trial } from "./trial.js";

/// A call that is closed, and filled when it is opened first.
export function shownCall(document_, { path, verb, operation }) {
  const inside = h("div", { class: "inside" });
  const fill = () => {
    if (!inside.childElementCount) inside.append(...parts(document_, path, verb, operation));
  };
  return h("details", { class: "call panel", id: operation.operationId, ontoggle: fill },
    h("summary", {}, h("span", { class: "verb", "data-verb": verb, text: verb.toUpperCase() }), h("code", { text: path }),
      h("span", { class: "told", text: operation.summary })), inside);
}

function parts(document_, path, verb, operation) {
  const { description, requestBody, responses } = operation;
  const takes = Object.entries(requestBody?.content ?? {}).map(([type, { schema }]) =>
    disclosed(`The body as ${type}${requestBody.required ? "" : ", or none"}`, written(document_, schema)));
  return [
    description ? h("p", { class: "hint", text: description }) : null,
    h("h3", { text: "Try it" }),
    trial(document_, path, verb, operation),
    takes.length ? h("h3", { text: "Takes" }) : null,
    ...takes,
    h("h3", { text: "Answers" }),
    h("dl", { class: "statuses" }, Object.entries(responses).flatMap(([status, response]) => answer(document_, status, response))),
  ].filter(Boolean);
}

function answer(document_, status, response) {
  const { description, content = {} } = resolved(document_, response);
  const bodies = Object.entries(content).filter(() => status === "200").map(([type, { schema }]) =>
    disclosed(type, written(document_, schema)));
  return [h("dt", { text: status }), h("dd", {}, description, bodies)];
}

function disclosed(title, text) {
  return h("details", {}, h("summary", { text: title }), h("pre", { tabindex: "0", text }));
}
