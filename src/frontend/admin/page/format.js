// Numbers as people read them: three digits that matter, with their unit. What is absent is a dash, never a zero.

export const NONE = "–";

/// Three significant digits, with thin groups of thousands.
export function number(value) {
  if (!Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
  if (Number.isInteger(value)) return String(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.01) return value.toFixed(2);
  return value.toPrecision(2);
}

/// With the prefix of the International System that leaves one to three digits before the point.
function scaled(value, unit, prefixes) {
  if (!Number.isFinite(value)) return NONE;
  if (value === 0) return `0 ${unit}`;
  const size = Math.abs(value);
  const [factor, prefix] = prefixes.find(([least]) => size >= least * 0.9995) ?? prefixes.at(-1);
  return `${number(value / factor)} ${prefix}${unit}`;
}

const SMALL = [[1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
const LARGE = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];

export const seconds = (value) => scaled(value, "s", SMALL);
export const joules = (value) => scaled(value, "J", [...LARGE, ...SMALL]);
export const watts = (value) => scaled(value, "W", [...LARGE, ...SMALL]);
export const count = (value) => scaled(value, "", [...LARGE, [1, ""], [1e-3, "m"]]).trimEnd();
export const perSecond = (value) => (Number.isFinite(value) ? `${number(value)}/s` : NONE);

/// Of a share from 0 to 1.
export function percent(value) {
  if (!Number.isFinite(value)) return NONE;
  if (value > 0 && value < 0.0001) return "<0.01 %";
  return `${number(value > 0.9995 && value < 1.0005 ? 100 : value * 100)} %`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)));
  return `${number(value / 1024 ** step)} ${units[step]}`;
}

/// A span as one looks at a clock: "3 d 4 h".
export function span(value) {
  if (!Number.isFinite(value)) return NONE;
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => value >= size);
  if (first < 0) return "0 s";
  const [unit, size] = parts[first];
  const rest = parts[first + 1];
  const left = rest ? Math.floor((value % size) / rest[1]) : 0;
  return `${Math.floor(value / size)} ${unit}${left ? ` ${left} ${rest[0]}` : ""}`;
}

/// A shape with its free axes.
export const shape = (dims) => `[${dims.map((dim) => (dim < 0 ? "?" : dim)).join(", ")}]`;
