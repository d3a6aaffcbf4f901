// Prometheus text to numbers: samples by name, histograms with what fell into each of their buckets.
// What a metric means is not known here.

/// `Map` of metric name to its samples, `{ labels, value }`.
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const brace = line.indexOf("{");
    const space = line.lastIndexOf(" ");
    const name = line.slice(0, brace < 0 ? space : brace);
    const labels = brace < 0 ? NO_LABELS : parseLabels(line.slice(brace + 1, line.lastIndexOf("}")));
    const value = numberOf(line.slice(space + 1));
    const known = samples.get(name);
    if (known) known.push({ labels, value });
    else samples.set(name, [{ labels, value }]);
  }
  return samples;
}

function parseLabels(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(LABEL)) {
    labels[name] = value.includes("\\") ? value.replaceAll(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c)) : value;
  }
  return labels;
}

const numberOf = (text) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));

/// The samples of a metric whose labels are as wanted; a label that is wanted empty may be missing.
export function select(samples, name, wanted = {}) {
  const all = samples.get(name) ?? [];
  const pairs = Object.entries(wanted);
  return all.filter(({ labels }) => pairs.every(([key, value]) => (labels[key] ?? "") === value));
}

/// The sum of those samples; `undefined` where there is none: absent is not zero.
export function total(samples, name, wanted) {
  const found = select(samples, name, wanted);
  return found.length ? found.reduce((sum, { value }) => sum + value, 0) : undefined;
}

/// The sums by one label.
export function by(samples, name, label, wanted) {
  const sums = new Map();
  for (const { labels, value } of select(samples, name, wanted)) {
    sums.set(labels[label] ?? "", (sums.get(labels[label] ?? "") ?? 0) + value);
  }
  return sums;
}

/// `{ bounds, counts, sum, count }`, the counts of each bucket alone; all series that match together.
export function histogram(samples, name, wanted) {
  const cumulative = new Map();
  for (const { labels, value } of select(samples, `${name}_bucket`, wanted)) {
    const bound = numberOf(labels.le);
    cumulative.set(bound, (cumulative.get(bound) ?? 0) + value);
  }
  const bounds = [...cumulative.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound, i) => cumulative.get(bound) - (i ? cumulative.get(bounds[i - 1]) : 0));
  return { bounds, counts, sum: total(samples, `${name}_sum`, wanted) ?? 0, count: total(samples, `${name}_count`, wanted) ?? 0 };
}

/// What fell into a histogram between two readings.
export function since(before, now) {
  const known = new Map(before.bounds.map((bound, i) => [bound, before.counts[i]]));
  const counts = now.bounds.map((bound, i) => Math.max(0, now.counts[i] - (known.get(bound) ?? 0)));
  return { bounds: now.bounds, counts, sum: now.sum - before.sum, count: now.count - before.count };
}

/// As Prometheus' histogram_quantile: linear within the bucket; beyond the last bound, that bound.
export function quantile({ bounds, counts }, q) {
  const all = counts.reduce((sum, n) => sum + n, 0);
  if (!all) return undefined;
  let left = q * all;
  for (let i = 0; i < bounds.length; i += 1) {
    if (left > counts[i] || !counts[i]) {
      left -= counts[i];
      continue;
    }
    const low = i ? bounds[i - 1] : 0;
    return bounds[i] === Infinity ? low : low + (bounds[i] - low) * (left / counts[i]);
  }
  return bounds.findLast(Number.isFinite);
}

const NO_LABELS = Object.freeze({});
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g;
