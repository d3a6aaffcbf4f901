// The screenshots of docs/ from Prometheus's own pages: `node pictures.mjs ADDRESS`. What they ask is what panels ask, without
// variables; the server that refuses for power is left out.

import { createRequire } from "node:module";

const { chromium } = createRequire(process.env.UI_MODULES)("playwright-core");
const [address] = process.argv.slice(2);

const origin = "source, quality";
const part = (name) =>
  `label_replace(sum by (${origin}) (rate(kinglet_energy_${name}_joules_total[15s]) unless on (instance) kinglet_power_limit_watts), "part", "${name}", "", "")`;
const graphs = {
  watts: ["attributed", "overhead", "other", "idle"].map(part).join(" or "),
  joules: `sum by (model, variant, ${origin}) (build_source_quality:kinglet_energy_per_inference_joules:ratio_rate5m)`,
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1100, height: 800 } });
page.setDefaultTimeout(20_000);
for (const [name, expr] of Object.entries(graphs)) {
  const query = new URLSearchParams({ "g0.expr": expr, "g0.tab": "0", "g0.range_input": "2m", "g0.step_input": "1" });
  await page.goto(`${address}/graph?${query}`);
  await page.locator(".rickshaw_graph svg path").first().waitFor();
  await page.locator(".graph_container").first().screenshot({ path: `docs/monitoring-${name}.png` });
}
await browser.close();
