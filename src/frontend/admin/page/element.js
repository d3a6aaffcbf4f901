// Elements without a template language: made once, changed in place, so that focus and selection stay where they are.

/// An element with attributes, `on...` listeners and children. `text` sets its content.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/// Sets text where it differs: what is unchanged is not read out again.
export function say(element, text) {
  const wanted = text ?? "";
  if (element.textContent !== wanted) element.textContent = wanted;
}

/// Sets or takes away an attribute.
export function mark(element, name, value) {
  if (value === undefined || value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

/// Holds a parent's children to a list: those of known keys stay, others are made or go.
export function keyed(parent, items, key, make, update) {
  const before = (parent.keyedParts ??= new Map());
  const now = new Map();
  items.forEach((item, index) => {
    const name = key(item);
    const part = before.get(name) ?? make(item);
    now.set(name, part);
    const root = part.root ?? part;
    if (parent.children[index] !== root) parent.insertBefore(root, parent.children[index] ?? null);
    update?.(part, item);
  });
  for (const [name, part] of before) if (!now.has(name)) (part.root ?? part).remove();
  parent.keyedParts = now;
}

/// A headline with a value and a line beneath it.
export function tile(label, hint) {
  const value = h("dd", { class: "value" }, NOTHING);
  const note = h("dd", { class: "note" });
  const root = h("div", { class: "tile", title: hint }, h("dt", { text: label }), value, note);
  return {
    root,
    set(text, beneath = "") {
      say(value, text);
      say(note, beneath);
    },
  };
}

/// Several values in one tile, each with its name.
export function tiles(label, names) {
  const values = names.map((name) => h("b", {}, NOTHING));
  const list = names.map((name, index) => h("span", {}, h("small", { text: name }), values[index]));
  const note = h("dd", { class: "note" });
  const root = h("div", { class: "tile broad" }, h("dt", { text: label }), h("dd", { class: "values" }, list), note);
  return {
    root,
    set(texts, beneath = "") {
      texts.forEach((text, index) => say(values[index], text));
      say(note, beneath);
    },
  };
}

/// A part of a view with a heading.
export function panel(title, ...children) {
  const id = `part-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id, text: title }), ...children);
}

/// A table that scrolls by itself where it is wider than the window.
export function table(caption, heads, body) {
  const head = heads.map(([text, kind]) => h("th", { scope: "col", class: kind, text }));
  const inner = h("table", {}, h("caption", { class: "unseen", text: caption }), h("thead", {}, h("tr", {}, head)), body);
  return h("div", { class: "scroll", role: "region", "aria-label": `${caption}, table`, tabindex: "0" }, inner);
}

/// A bar of a share of the whole, 0 to 1. Its width is set by script: styles in attributes are not allowed here.
export function bar(share, kind = "") {
  const fill = h("span", { class: `fill ${kind}` });
  fill.style.width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, fill);
}

export function empty(title, ...rest) {
  return h("div", { class: "empty" }, h("p", { class: "lead", text: title }), rest.length ? h("p", {}, ...rest) : null);
}

const NOTHING = "–";
