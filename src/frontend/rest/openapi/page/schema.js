// Schemas as people read them: the form of the JSON, with types in place of values.

/// What a reference stands for.
export function resolved(document_, value) {
  const target = value?.$ref;
  return target ? target.slice(2).split("/").reduce((part, name) => part[name], document_) : value;
}

/// A schema as text.
export function written(document_, schema, depth = 0) {
  const now = resolved(document_, schema) ?? {};
  const inner = (part) => written(document_, part, depth + 1);
  if (depth > DEPTH_MAX) return "…";
  if ("const" in now) return JSON.stringify(now.const);
  if (now.enum) return now.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = now.anyOf ?? (now.properties ? undefined : now.oneOf);
  if (choices) return [...new Set(choices.map((choice) => written(document_, choice, depth)))].join("\n" + pad(depth) + "or ");
  const types = [now.type ?? "any"].flat();
  const others = types.filter((type) => type !== "object" && type !== "array").map((type) => (type === "null" ? type : `${type}${reach(now)}`));
  const form = types.includes("object") ? object(now, depth, inner) : types.includes("array") ? array(now, (part) => written(document_, part, depth)) : undefined;
  return [form, ...others].filter(Boolean).join(" | ");
}

function object({ properties = {}, required = [], additionalProperties }, depth, inner) {
  const names = Object.keys(properties).sort((a, b) => required.includes(b) - required.includes(a));
  const lines = names.map((name) => {
    const { description } = properties[name];
    return `${pad(depth + 1)}${name}${required.includes(name) ? "" : "?"}: ${inner(properties[name])}${description ? `  // ${description}` : ""}`;
  });
  if (additionalProperties) lines.push(`${pad(depth + 1)}…: ${inner(additionalProperties)}`);
  return lines.length ? `{\n${lines.join("\n")}\n${pad(depth)}}` : "object";
}

function array({ prefixItems, items, minItems, maxItems }, inner) {
  if (prefixItems) return `[${prefixItems.map(inner).join(", ")}]`;
  if (maxItems === 0) return "[]";
  const count = minItems !== undefined && minItems === maxItems ? ` × ${minItems}` : "";
  return `[${items ? inner(items) : "any"}${count || ", …"}]`;
}

/// The values that a type may have; bounds of 64 bits are those of every number.
function reach({ minimum, maximum, exclusiveMinimum, format, contentEncoding }) {
  if (exclusiveMinimum !== undefined) return ` above ${exclusiveMinimum}`;
  if (minimum !== undefined && maximum <= Number.MAX_SAFE_INTEGER) return ` ${minimum} … ${maximum}`;
  if (minimum !== undefined && maximum === undefined || minimum === 0) return ` from ${minimum}`;
  return format || contentEncoding ? ` (${format ?? contentEncoding})` : "";
}

const pad = (depth) => "  ".repeat(depth);
/// Deeper ones say nothing more to a reader.
const DEPTH_MAX = 9;
