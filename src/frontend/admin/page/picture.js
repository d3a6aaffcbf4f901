// A picture becomes a tensor here, in the browser: decoded, fitted to the input's extents, and normalised as a person chooses.

import { h, say } from "./element.js";

/// Where an input looks like a picture, its layout and extents: four axes with one, three or four channels.
export function pictureInput({ inputs }) {
  const found = inputs.find(({ datatype, shape }) => shape.length === 4 && datatype !== "BYTES" && datatype !== "BOOL" && axesOf(shape));
  return found && { ...found, ...axesOf(found.shape) };
}

function axesOf([, a, b, c]) {
  const isChannels = (extent) => [1, 3, 4].includes(extent);
  const isExtent = (extent) => extent < 0 || extent >= 8;
  const open = (extent) => (extent < 0 ? OPEN_EXTENT : extent);
  if (isChannels(a) && isExtent(b) && isExtent(c)) return { layout: "NCHW", channels: a, height: open(b), width: open(c) };
  if (isChannels(c) && isExtent(a) && isExtent(b)) return { layout: "NHWC", channels: c, height: open(a), width: open(b) };
  return undefined;
}

/// The place for a picture: `onpicture` gets the request whenever the picture or a choice has changed.
export function picture(input, onpicture) {
  const canvas = h("canvas", { width: input.width, height: input.height, role: "img", "aria-label": "No picture yet" });
  const file = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", id: "picture-file", onchange: () => take(file.files[0]) });
  const formula = h("p", { class: "hint" });
  const status = h("p", { class: "hint", role: "status" });
  const choice = (label, options, first) => {
    const select = h("select", { onchange: () => draw() }, Object.keys(options).map((name) => h("option", { value: name, text: name })));
    select.value = first;
    return { select, root: h("label", { class: "field" }, h("span", { text: label }), select) };
  };
  const isWhole = input.datatype.includes("INT");
  const norm = choice("Normalisation", NORMS, isWhole ? "0 to 255" : "0 to 1");
  const fit = choice("Fit", FITS, "contain");
  const invert = h("input", { type: "checkbox", onchange: () => draw() });
  const zone = h("div", { class: "drop" },
    h("label", { class: "drop-label", for: "picture-file" }, h("b", { text: "Drop a PNG here" }), h("span", {}, "or ", h("u", { text: "choose a file" }))),
    file, canvas);
  let bitmap;
  const take = async (blob) => {
    if (!blob) return;
    try {
      bitmap = await createImageBitmap(blob);
      canvas.setAttribute("aria-label", `${blob.name ?? "picture"}, fitted to ${input.width} by ${input.height}`);
      say(status, `${blob.name ?? "Picture"}: ${bitmap.width} × ${bitmap.height} → ${input.width} × ${input.height}, ${input.layout}`);
      draw();
    } catch {
      say(status, "The browser cannot read this file as a picture.");
    }
  };
  const draw = () => {
    say(formula, NORMS[norm.select.value].told);
    if (!bitmap) return;
    const pixels = fitted(canvas, bitmap, fit.select.value, invert.checked);
    onpicture({ inputs: [tensor(input, pixels, NORMS[norm.select.value])] });
  };
  for (const name of ["dragover", "dragenter"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  draw();
  const inverted = h("label", { class: "check" }, invert, "Invert: dark ink on light paper becomes high values");
  return h("div", { class: "picture" }, zone, h("div", { class: "choices" }, norm.root, fit.root), inverted, formula, status);
}

/// Pixels of the picture on the canvas.
function fitted(canvas, bitmap, fit, invert) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const { width, height } = canvas;
  context.fillStyle = invert ? "white" : "black";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  const [x, y] = FITS[fit](width / bitmap.width, height / bitmap.height);
  const [w, h] = [bitmap.width * x, bitmap.height * y];
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  if (invert) {
    context.globalCompositeOperation = "difference";
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
  }
  return context.getImageData(0, 0, width, height).data;
}

/// Channels of each pixel, normalised, in the input's layout.
function tensor({ name, datatype, layout, channels, width, height }, pixels, { mean, deviation, scale }) {
  const area = width * height;
  const data = new Array(area * channels);
  const isWhole = datatype.includes("INT");
  for (let i = 0; i < area; i += 1) {
    const [r, g, b, a] = pixels.subarray(4 * i, 4 * i + 4);
    const values = channels === 1 ? [0.299 * r + 0.587 * g + 0.114 * b] : [r, g, b, a];
    for (let c = 0; c < channels; c += 1) {
      const value = (values[c] / scale - mean[c]) / deviation[c];
      data[layout === "NCHW" ? c * area + i : i * channels + c] = isWhole ? Math.round(value) : Math.round(value * 1e4) / 1e4;
    }
  }
  const shape = layout === "NCHW" ? [1, channels, height, width] : [1, height, width, channels];
  return { name, datatype, shape, data };
}

const FITS = {
  contain: (x, y) => [Math.min(x, y), Math.min(x, y)],
  cover: (x, y) => [Math.max(x, y), Math.max(x, y)],
  stretch: (x, y) => [x, y],
};

const all = (value) => [value, value, value, value];
const NORMS = {
  "0 to 1": { scale: 255, mean: all(0), deviation: all(1), told: "value = pixel ÷ 255" },
  "−1 to 1": { scale: 255, mean: all(0.5), deviation: all(0.5), told: "value = (pixel ÷ 255 − 0.5) ÷ 0.5" },
  "ImageNet": {
    scale: 255,
    mean: [0.485, 0.456, 0.406, 0],
    deviation: [0.229, 0.224, 0.225, 1],
    told: "value = (pixel ÷ 255 − mean) ÷ deviation, with means 0.485, 0.456, 0.406 and deviations 0.229, 0.224, 0.225",
  },
  "0 to 255": { scale: 1, mean: all(0), deviation: all(1), told: "value = pixel" },
};

/// Of inputs that leave their extents open.
const OPEN_EXTENT = 224;
