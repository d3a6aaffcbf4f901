// Lines over the last minutes, drawn by uPlot in the page's colours, with a legend that tells the values.
// What is drawn is not known here.

import { h, say } from "./element.js";
import { KEPT } from "./history.js";

/// A figure with `draw(columns)`: times in seconds, then one column per line. `lines` are `[name, colour]`, the colour
/// a custom property of the style sheet; `format` makes text of a value.
export function chart(title, lines, format, options = {}) {
  const values = lines.map(() => h("output", { text: "–" }));
  const legend = lines.map(([name, colour], i) =>
    h("li", { class: `key ${colour}` }, h("span", { text: name }), values[i]));
  const plot = h("div", { class: "plot", role: "img", "aria-label": title });
  const lead = h("p", { class: "lead", text: options.idle ?? "Nothing yet" });
  const root = h("figure", { class: "chart" },
    h("figcaption", {}, h("h2", { text: title }), h("ul", { class: "legend", "aria-hidden": "true" }, legend)),
    h("div", { class: "stage" }, plot, h("div", { class: "over" }, lead)));
  const line = { root, plot, values, lines, format, options, title, columns: undefined, drawn: undefined };
  new ResizeObserver(() => fit(line)).observe(plot);
  document.addEventListener("themechange", () => {
    line.drawn?.destroy();
    line.drawn = undefined;
    if (line.columns && root.isConnected) show(line);
  });
  return {
    root,
    draw(columns, isIdle = false) {
      line.columns = columns;
      root.classList.toggle("idle", isIdle);
      tell(line, columns[0].length - 1);
      const told = lines.map(([name], i) => `${name} ${values[i].textContent}`).join(", ");
      plot.setAttribute("aria-label", isIdle ? `${title}: ${lead.textContent}` : `${title}, now: ${told}`);
      show(line);
    },
  };
}

/// Values at a point of time: the newest, or the one under the pointer.
function tell(line, index) {
  line.values.forEach((output, i) => say(output, line.format(line.columns[i + 1][index] ?? undefined)));
}

function show(line) {
  if (!line.plot.clientWidth) return;
  line.drawn ??= new globalThis.uPlot(settings(line), line.columns, line.plot);
  line.drawn.setData(line.columns, false);
  const end = line.columns[0].at(-1) ?? Date.now() / 1000;
  line.drawn.batch(() => {
    // Few points do not get lost in minutes that nobody watched.
    const age = end - (line.columns[0][0] ?? end);
    line.drawn.setScale("x", { min: end - Math.min(KEPT, Math.max(SHOWN_MIN, age)), max: end });
    const [low, high] = reach(line);
    line.drawn.setScale("y", { min: low, max: high });
  });
}

/// From zero to a little above the highest point.
function reach(line) {
  const highest = Math.max(0, ...line.columns.slice(1).flat().filter((value) => value !== null));
  return [0, highest > 0 ? highest * 1.15 : (line.options.least ?? 1)];
}

function fit(line) {
  if (line.drawn) line.drawn.setSize({ width: line.plot.clientWidth, height: HEIGHT });
  else if (line.columns) show(line);
}

function settings(line) {
  const colour = (name) => {
    line.plot.style.color = `var(--${name})`;
    return getComputedStyle(line.plot).color;
  };
  const axis = { stroke: colour("soft"), font: FONT, grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false } };
  const series = line.lines.map(([label, name]) => ({
    label,
    stroke: colour(name),
    width: 2,
    fill: line.lines.length === 1 ? colour(name).replace(")", ", 0.13)") : undefined,
    points: { show: false },
    spanGaps: false,
  }));
  return {
    width: line.plot.clientWidth,
    height: HEIGHT,
    padding: [8, 26, 0, 0],
    legend: { show: false },
    cursor: { drag: { setScale: false }, y: false, points: { size: 6 } },
    hooks: { setCursor: [(drawn) => tell(line, drawn.cursor.idx ?? line.columns[0].length - 1)] },
    scales: { x: { time: true, auto: false }, y: { auto: false } },
    axes: [
      { ...axis, size: 28, space: 70, values: (_, times) => times.map((time) => clock(time, times.at(-1) - times[0])) },
      { ...axis, size: 62, space: 38, values: (_, ticks) => ticks.map((tick) => line.format(tick)) },
    ],
    series: [{}, ...series],
  };
}

/// With seconds where the axis is short.
const clock = (time, length) =>
  new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: length < 150 ? "2-digit" : undefined });

/// Seconds.
const SHOWN_MIN = 60;
/// Pixels.
const HEIGHT = 190;
const FONT = "11px system-ui, sans-serif";
