// Requests for a model: the one that lies beside it, or one made up from its signature; and how a request is written.

import { call } from "./server.js";

/// The request that the model's folder ships, as text; `undefined` where it ships none.
export async function shipped(model) {
  const response = await call(`ui/models/${encodeURIComponent(model)}/sample`);
  return response.status === 204 ? undefined : response.text();
}

/// A request of one row with made-up numbers.
export function madeUp({ inputs }) {
  return {
    inputs: inputs.map(({ name, datatype, shape }) => {
      const extents = shape.map((dim, axis) => (dim >= 0 ? dim : axis === 0 ? 1 : EXTENT));
      const count = extents.reduce((product, extent) => product * extent, 1);
      return { name, datatype, shape: extents, data: Array.from({ length: count }, VALUES[kind(datatype)]) };
    }),
  };
}

/// Numbers in a request.
export const elements = ({ inputs }) => inputs.reduce((sum, { data }) => sum + data.length, 0);

/// A request as text, with a line for each row of the last axis.
export function written({ inputs }) {
  const tensors = inputs.map(({ data, ...head }) => {
    const width = Math.max(1, head.shape.at(-1) ?? 1);
    const lines = [];
    for (let i = 0; i < data.length; i += width) lines.push(data.slice(i, i + width).map((v) => JSON.stringify(v)).join(","));
    return `${JSON.stringify(head).slice(0, -1)},"data":[\n${lines.join(",\n")}\n]}`;
  });
  return `{"inputs":[${tensors.join(",\n")}]}`;
}

/// Reads what a person wrote.
export function parsed(text) {
  let request;
  try {
    request = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
  if (!Array.isArray(request?.inputs)) throw new Error('Expected an object with "inputs", a list of tensors.');
  return request;
}

/// Outputs that look like scores of classes: a row of a fixed number of floats.
export function classifiers({ outputs }) {
  return outputs.filter(({ datatype, shape }) =>
    datatype.startsWith("FP") && shape.length === 2 && shape[1] > 1 && shape[1] <= CLASSES_MAX);
}

/// The request with what this page wants besides: a report, a variant, classes in place of scores.
export function asked(request, variant, classes) {
  const parameters = { ...request.parameters, kinglet_report: true, ...(variant ? { variant } : {}) };
  if (!classes || request.outputs) return { ...request, parameters };
  const scores = new Map(classifiers(classes).map(({ name, shape }) => [name, shape[1]]));
  const outputs = classes.outputs.map(({ name }) =>
    scores.has(name) ? { name, parameters: { classification: scores.get(name) } } : { name });
  return { ...request, parameters, outputs };
}

const kind = (datatype) => (datatype === "BOOL" || datatype === "BYTES" ? datatype : datatype.includes("F") ? "FLOAT" : "INT");
const VALUES = {
  FLOAT: () => Math.round(Math.random() * 1000) / 1000,
  INT: () => Math.floor(Math.random() * 2),
  BOOL: () => Math.random() < 0.5,
  BYTES: () => "text",
};
/// Of axes that are open besides the batch.
const EXTENT = 16;
/// Beyond these an output is a vector of something else.
const CLASSES_MAX = 25_000;
