// The builds of a version: what the page says of their worth and costs, and of what has been chosen.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";

import { browser, MODELLED, objections, open, sampleOf, Server } from "./running.mjs";

const repository = mkdtempSync(`${tmpdir()}/kinglet-ui-`);
const server = new Server(MODELLED, repository);
let chromium;

before(async () => {
  for (const model of ["digits", "wine"]) cpSync(`models/${model}`, `${repository}/${model}`, { recursive: true });
  for (const name of ["small", "unjudged", "broken"]) {
    cpSync("models/digits/1/model.onnx", `${repository}/digits/1/variants/${name}/model.onnx`);
  }
  writeFileSync(`${repository}/digits/1/variants/broken/model.onnx`, "this is no ONNX model");
  const manifest = `${repository}/digits/manifest.toml`;
  writeFileSync(manifest, `accuracy = 0.98\n${readFileSync(manifest)}\n[variants.small]\naccuracy = 0.9\n`);
  [chromium] = await Promise.all([browser(), server.start()]);
});
after(async () => {
  await chromium.close();
  await server.stop();
  rmSync(repository, { recursive: true });
});

const ask = (parameters) =>
  server.ask("POST", "/v2/models/digits/infer", { body: JSON.stringify({ ...JSON.parse(sampleOf("digits")), parameters }) });

test("the builds of a version stand side by side, with what they are worth and why they were chosen", async () => {
  for (const parameters of [{}, {}, { min_accuracy: 0.95 }, { variant: "small" }]) {
    assert.equal((await ask(parameters)).status, 200);
  }
  const page = await open(chromium, `${server.page}#/models/digits/1`);
  const table = page.getByRole("region", { name: "Builds to choose from, table" });
  const row = (name) => table.getByRole("row", { name: new RegExp(`^${name} `) });
  const cells = async (name) => (await row(name).getByRole("cell").allTextContents()).map((text) => text.trim());

  await row("own build").filter({ hasText: "budget 1, default 2" }).waitFor();
  // Joules are known when a window of the meter has ended.
  await row("own build").filter({ hasText: /[mµ]J/ }).waitFor();
  const [accuracy, time, energy, memory, chosen] = await cells("own build");
  assert.deepEqual([accuracy, chosen], ["98 %", "3 (75 %)"]);
  assert.match(time, /^[\d.]+ [µm]s$/);
  assert.match(energy, /^[\d.]+ [mµ]J$/);
  assert.match(memory, /^[\d.]+ [KM]iB$/);
  assert.deepEqual([(await cells("small"))[0], ...(await cells("small")).slice(4)], ["90 %", "1 (25 %)", "named 1"]);
  assert.deepEqual([(await cells("unjudged"))[0], ...(await cells("unjudged")).slice(4)], ["–", "0 (0 %)", ""]);
  assert.deepEqual((await cells("broken")).slice(0, 4), ["–", "–", "–", "–"]);
  assert.match((await cells("broken"))[5], /ONNX|model/);
  await page.getByText("Energy: model, modelled.").waitFor();

  // What comes while the page is open is counted in.
  assert.equal((await ask({ variant: "small" })).status, 200);
  await row("small").filter({ hasText: "named 2" }).waitFor();
  await row("small").getByRole("link", { name: "small" }).click();
  await page.getByRole("heading", { name: "digits, variant small" }).waitFor();
  await row("small").waitFor();
  assert.deepEqual([await objections(page), page.faults], [[], []]);
  await page.emulateMedia({ colorScheme: "dark" });
  assert.deepEqual(await objections(page), []);
  await page.setViewportSize({ width: 360, height: 740 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await page.context().close();
});

test("a version without variants has nothing to choose from", async () => {
  const page = await open(chromium, `${server.page}#/models/wine/1`);
  await page.getByRole("heading", { name: "Layers" }).waitFor();
  assert.ok(await page.getByRole("heading", { name: "Builds to choose from" }).isHidden());
  assert.deepEqual(page.faults, []);
  await page.context().close();
});
