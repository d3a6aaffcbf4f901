// The last minutes, from readings of the counters: rates, quantiles, joules. Starts when the page is opened; the server
// keeps none. One series for the whole server, one for every build.

import { by, histogram, quantile, select, since, total } from "./metrics.js";

/// The key of the whole server.
export const ALL = "";

/// What tells builds apart, in the order of labels.
export const keyOf = ({ model, version, variant }) => [model, version, variant ?? ""].join("\n");

const labelsOf = (key) => {
  if (key === ALL) return {};
  const [model, version, variant] = key.split("\n");
  return { model, version, variant };
};

export class History {
  #readings = [];
  #series = new Map();

  /// Takes a reading. Where the server has started anew, what was read before says nothing of what comes.
  add(samples, at) {
    const started = total(samples, "process_start_time_seconds");
    const last = this.#readings.at(-1);
    const anew = last && last.started !== started;
    if (anew || (last && at - last.at > GAP_MAX)) this.#readings = [];
    this.#readings.push({ at, started, samples });
    while (at - this.#readings[0].at > WINDOW) this.#readings.shift();
    const keys = [ALL, ...select(samples, "kinglet_model_ready").map(({ labels }) => keyOf(labels))];
    for (const key of keys) this.#record(key, at);
    return anew;
  }

  get samples() {
    return this.#readings.at(-1)?.samples;
  }

  get uptime() {
    const last = this.#readings.at(-1);
    return last ? last.at - last.started : undefined;
  }

  /// Of the last ten seconds.
  recent(key = ALL) {
    return this.#between(key, this.#readings[0], this.#readings.at(-1));
  }

  /// Columns for a chart: times and the named values, gaps as null.
  columns(key, names) {
    const points = this.#series.get(key) ?? [];
    return [points.map(({ at }) => at), ...names.map((name) => points.map((point) => point[name] ?? null))];
  }

  /// Whether anything was ever asked of a build.
  isIdle(key = ALL) {
    const wanted = labelsOf(key);
    return !this.samples || !total(this.samples, "kinglet_requests_total", { ...wanted, code: "ok" });
  }

  histogram(key, name, labels = {}) {
    return histogram(this.samples ?? new Map(), name, { ...labelsOf(key), ...labels });
  }

  by(key, name, label) {
    return by(this.samples ?? new Map(), name, label, labelsOf(key));
  }

  value(key, name) {
    return this.samples && total(this.samples, name, labelsOf(key));
  }

  #record(key, at) {
    const points = this.#series.get(key) ?? [];
    points.push({ at, ...this.#between(key, this.#readings.at(-2), this.#readings.at(-1)) });
    while (at - points[0].at > KEPT) points.shift();
    this.#series.set(key, points);
  }

  #between(key, before, now) {
    const wanted = labelsOf(key);
    const queue = now && total(now.samples, "kinglet_queue_requests", wanted);
    if (!before || !now || before === now) return { queue };
    const time = now.at - before.at;
    const change = (name, labels = wanted) => {
      const [then, today] = [total(before.samples, name, labels), total(now.samples, name, labels)];
      return today === undefined ? undefined : Math.max(0, today - (then ?? 0));
    };
    const name = "kinglet_request_duration_seconds";
    const spread = since(histogram(before.samples, name, wanted), histogram(now.samples, name, wanted));
    const asked = change("kinglet_requests_total");
    const ok = change("kinglet_requests_total", { ...wanted, code: "ok" }) ?? 0;
    const joules = change(ATTRIBUTED);
    return {
      queue,
      rate: asked === undefined ? undefined : asked / time,
      failed: asked === undefined ? undefined : (asked - ok) / time,
      rows: (change("kinglet_rows_total") ?? 0) / time,
      p50: quantile(spread, 0.5),
      p90: quantile(spread, 0.9),
      p99: quantile(spread, 0.99),
      watts: joules === undefined ? undefined : joules / time,
      joulesPerRequest: joules === undefined || !ok ? undefined : joules / ok,
      cpu: key === ALL ? (change("process_cpu_seconds_total") ?? 0) / time : (change("kinglet_model_cpu_seconds_total") ?? 0) / time,
    };
  }

  /// Watts of every series of a counter of joules, of the last ten seconds, with its labels.
  watts(name) {
    const [before, now] = [this.#readings[0], this.#readings.at(-1)];
    if (!before || before === now) return [];
    const value = (samples, labels) => select(samples, name, labels)[0]?.value ?? 0;
    const rate = (labels) => (value(now.samples, labels) - value(before.samples, labels)) / (now.at - before.at);
    return select(now.samples, name).map(({ labels }) => ({ labels, watts: Math.max(0, rate(labels)) }));
  }

  /// By what builds are chosen where requests leave a choice: `{ stage, limit }`, the limit in watts where there is one.
  get stage() {
    if (!this.samples) return undefined;
    const now = select(this.samples, "kinglet_budget_stage").find(({ value }) => value === 1);
    return now && { stage: now.labels.stage, limit: select(this.samples, "kinglet_power_limit_watts")[0]?.value };
  }

  /// Where joules come from: `{ source, quality, coefficients }`, or nothing where nothing tells them.
  get source() {
    return this.samples && select(this.samples, "kinglet_energy_source_info").find(({ value }) => value === 1)?.labels;
  }
}

export const ATTRIBUTED = "kinglet_energy_attributed_joules_total";
/// Seconds.
export const KEPT = 300;
const WINDOW = 10.5;
const GAP_MAX = 30;
