// One request by hand: from the model's sample, made up, written as JSON, or a picture; and what comes of it.

import { shown } from "./answer.js";
import { empty, h, mark, panel, say } from "./element.js";
import * as format from "./format.js";
import { asked, classifiers, elements, madeUp, parsed, shipped, written } from "./inputs.js";
import { picture, pictureInput } from "./picture.js";
import { call, modelPath, read } from "./server.js";

export function trial(server, [wanted, variant = ""]) {
  const form = new Form(server, wanted, variant);
  return { title: "Try it", view: "try", root: form.root, update: () => form.update() };
}

class Form {
  #signature;
  /// A request too long to be shown, in place of the text.
  #held;
  #models = "";
  #generation = 0;

  constructor(server, wanted, variant) {
    this.server = server;
    this.wanted = wanted;
    this.variant = variant;
    const field = (label, control) => h("label", { class: "field" }, h("span", { text: label }), control);
    const button = (text, onclick) => h("button", { type: "button", class: "small", text, onclick });
    this.model = h("select", { onchange: () => this.#choose() });
    this.build = h("select");
    this.sample = button("Sample", () => this.#fillSample());
    this.text = h("textarea", { rows: "12", spellcheck: "false", id: "request", oninput: () => this.#hold(undefined) });
    this.note = h("p", { class: "hint", role: "status" });
    this.classes = h("input", { type: "checkbox", checked: true });
    this.classesField = h("label", { class: "check" }, this.classes, "Ask for classes: labels and scores, highest first");
    this.pictureField = h("div");
    this.button = h("button", { type: "submit", text: "Send" });
    this.place = h("div", { "aria-live": "polite" }, empty("No answer yet", "Send a request: what comes back, how long it took and what it cost appears here."));
    this.tensors = h("p", { class: "facts" });
    const fill = h("div", { class: "buttons", role: "group", "aria-label": "Fill in" }, this.sample, button("Made up", () => this.#fillMadeUp()));
    const form = h("form", { novalidate: true, onsubmit: (event) => this.#submit(event) },
      h("div", { class: "choices" }, field("Model", this.model), field("Build", this.build)), this.tensors, this.pictureField,
      h("div", { class: "over-text" }, h("label", { for: "request", text: "Request" }), fill), this.text, this.note,
      this.classesField, h("div", { class: "actions" }, this.button));
    this.ready = h("div", { class: "pair uneven" }, panel("Request", form), panel("Answer", this.place));
    this.nothing = empty("No model answers now", "One that is loaded can be tried here. ", h("a", { href: "#/", text: "All models" }), ".");
    this.root = h("div", {}, this.nothing, this.ready);
  }

  /// Follows what is loaded; a choice that still stands is kept.
  update() {
    const builds = this.server.builds.filter(({ state }) => state === "READY");
    const names = [...new Set(builds.map(({ model }) => model))];
    this.nothing.hidden = names.length > 0 || this.server.state === "starting";
    this.ready.hidden = names.length === 0;
    const known = JSON.stringify(builds.map(({ model, version, variant }) => [model, version, variant]));
    if (known === this.#models) return;
    this.#models = known;
    const before = this.model.value || this.wanted;
    this.model.replaceChildren(...names.map((name) => h("option", { value: name, text: name })));
    if (names.includes(before)) this.model.value = before;
    if (names.length && (this.model.value !== before || !this.#signature)) this.#choose();
    else this.#builds();
  }

  /// The builds of the chosen model: the newest version's own and its variants, and the other versions.
  #builds() {
    const builds = this.server.builds.filter(({ model, state }) => model === this.model.value && state === "READY");
    const before = this.build.value;
    const options = builds.map(({ version, variant }) =>
      h("option", { value: JSON.stringify([version, variant]), text: variant ? `version ${version}, variant ${variant}` : `version ${version}` }));
    this.build.replaceChildren(...options);
    const newest = builds.filter(({ variant }) => variant === this.variant).at(-1) ?? builds.at(-1);
    const values = options.map(({ value }) => value);
    if (values.includes(before)) this.build.value = before;
    else if (newest) this.build.value = JSON.stringify([newest.version, newest.variant]);
  }

  async #choose() {
    const turn = (this.#generation += 1);
    const model = this.model.value;
    this.#builds();
    const [signature, sample] = await Promise.all([read(modelPath(model)), shipped(model)]).catch((error) => {
      say(this.note, error.message);
      return [];
    });
    if (!signature || turn !== this.#generation) return;
    this.#signature = signature;
    this.shipped = sample;
    const told = (tensors) => tensors.map(({ name, datatype, shape }) => `${name} ${datatype} ${format.shape(shape)}`).join(", ");
    say(this.tensors, `${told(signature.inputs)} → ${told(signature.outputs)}`);
    this.sample.disabled = sample === undefined;
    mark(this.sample, "title", sample === undefined ? "No sample_request.json lies beside this model" : null);
    this.classesField.hidden = classifiers(signature).length === 0;
    const input = signature.inputs.length === 1 ? pictureInput(signature) : undefined;
    this.pictureField.replaceChildren(...(input ? [picture(input, (request) => this.#fill(request, "The picture"))] : []));
    if (sample === undefined) this.#fillMadeUp();
    else this.#fillSample();
  }

  #fillSample() {
    this.#hold(undefined);
    this.text.value = this.shipped;
    say(this.note, "The sample that lies beside the model.");
  }

  #fillMadeUp() {
    this.#fill(madeUp(this.#signature), "Made-up numbers from the signature");
  }

  #fill(request, what) {
    const count = elements(request);
    const isLong = count > SHOWN_MAX;
    this.#hold(isLong ? request : undefined);
    this.text.value = isLong ? "" : written(request);
    say(this.note, isLong ? `${what}: ${format.number(count)} numbers, too many to show. Write here to send something else.` : `${what}.`);
  }

  #hold(request) {
    this.#held = request;
  }

  async #submit(event) {
    event.preventDefault();
    this.button.disabled = true;
    try {
      const [version, variant] = JSON.parse(this.build.value);
      const request = this.#held ?? parsed(this.text.value);
      const wantsClasses = this.classes.checked && !this.classesField.hidden;
      const body = asked(request, variant, wantsClasses ? this.#signature : undefined);
      const classes = new Set((body.outputs ?? []).filter(({ parameters }) => parameters?.classification).map(({ name }) => name));
      const result = await send(`${modelPath(this.model.value, version)}/infer`, body);
      this.place.replaceChildren(shown(result, classes));
    } catch (error) {
      const what = error.status ? `The server refused it with status ${error.status}.` : "It was not sent.";
      this.place.replaceChildren(h("div", { class: "problem", role: "alert" }, h("p", { class: "lead", text: what }), h("p", { text: error.message })));
    }
    this.button.disabled = false;
  }
}

/// The answer with its time and energy.
async function send(path, body) {
  const text = JSON.stringify(body);
  const began = performance.now();
  const response = await call(path, { method: "POST", headers: { "content-type": "application/json" }, body: text });
  const answer = await response.json();
  const took = (performance.now() - began) / 1000;
  const joules = response.headers.get("kinglet-energy-joules");
  return { answer, took, joules: joules === null ? undefined : Number(joules), source: response.headers.get("kinglet-energy-source") };
}

/// Numbers in a request that is shown as text.
const SHOWN_MAX = 5000;
