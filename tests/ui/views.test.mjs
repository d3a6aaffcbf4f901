// Every view: what it shows under load and without, in both themes, on a phone, by keyboard and to a screen reader.

import assert from "node:assert/strict";
import os from "node:os";
import { after, afterEach, before, describe, test } from "node:test";

import { browser, keyboard, MODELLED, objections, open, Server } from "./running.mjs";

const VIEWS = ["#/", "#/models/digits/1", "#/energy", "#/try/digits"];
const server = new Server(MODELLED);
let chromium;
let stopLoad;
let page;

before(async () => {
  [chromium] = await Promise.all([browser(), server.start()]);
});
after(async () => {
  await stopLoad?.();
  await chromium.close();
  await server.stop();
});
afterEach(async () => {
  const faults = page?.faults ?? [];
  await page?.context().close();
  page = undefined;
  assert.deepEqual(faults, []);
});

const tile = (label) => page.locator(".tile", { has: page.locator("dt", { hasText: new RegExp(`^${label}$`) }) }).locator(".value, .values").first();
const textOf = async (locator) => (await locator.textContent()).trim();
const until = (locator, pattern) => locator.filter({ hasText: pattern }).waitFor();

describe("before any request", () => {
  test("the page says so, and why nothing can be loaded", async () => {
    page = await open(chromium, server.page);
    await page.getByText("No requests yet: try one").waitFor();
    assert.equal(await page.locator(".chart.idle").count(), 2);
    await until(page.locator(".panel .hint").first(), 'repository.control is "none"');
    assert.ok(await page.getByRole("button", { name: "Unload digits" }).isDisabled());
    for (const model of ["digits", "vowels", "wine"]) await page.getByRole("link", { name: model, exact: true }).waitFor();
  });

  test("a model has no batches and no times", async () => {
    page = await open(chromium, `${server.page}#/models/wine/1`);
    await page.getByText("No batches yet").waitFor();
    await page.getByText("No times yet").waitFor();
    await page.getByRole("cell", { name: "[?, 13]" }).waitFor();
  });

  test("an unknown model is said to be one", async () => {
    page = await open(chromium, `${server.page}#/models/nothing/1`);
    await page.getByText("No such model").waitFor();
  });
});

describe("under load", () => {
  before(async () => {
    stopLoad = server.load();
  });

  test("rates, latencies and charts are live", async () => {
    page = await open(chromium, server.page);
    await until(tile("Requests"), /^[1-9][\d.\u202f]*\/s$/);
    await until(tile("Latency"), /p50[\d.]+ [µm]s.*p99[\d.]+ [µm]s/);
    const row = page.getByRole("row", { name: /digits/ });
    await until(row, /ready.*\d\/s/);
    assert.match(await page.getByRole("img", { name: /Requests per second, now/ }).getAttribute("aria-label"), /\d\/s/);
    assert.ok((await page.locator(".chart canvas").count()) >= 2);
  });

  test("a model tells how its batches came about and where the time goes", async () => {
    page = await open(chromium, `${server.page}#/models/digits/1`);
    const batches = page.getByRole("region", { name: "Batches", exact: true });
    await until(batches.locator(".bars li").first(), /^\d/);
    await until(batches.locator(".split li", { hasText: "idle" }), /\d %/);
    await until(page.locator(".split li", { hasText: "compute" }), /[\d.]+ [µm]s/);
  });

  test("layers are measured when asked for, with their kernels", async () => {
    page = await open(chromium, `${server.page}#/models/digits/1`);
    await page.getByRole("button", { name: "Measure layers" }).click();
    const table = page.getByRole("region", { name: "Layers, table" });
    await until(table.locator("tbody tr").first(), /f32_\w+/);
    await page.getByText(/8 layers · .* multiply-accumulates/).waitFor();
  });

  test("without a source of energy there is no zero", async () => {
    const silent = await new Server({ KINGLET__METERING__SOURCE: "none" }).start();
    const stop = silent.load(["digits"]);
    page = await open(chromium, silent.page);
    await until(tile("Requests"), /\d\/s/);
    assert.equal(await textOf(tile("Energy per inference")), "–");
    await page.getByText("no source of energy is configured").first().waitFor();
    await page.goto(`${silent.page}#/energy`);
    await page.getByText("No source of energy is configured").waitFor();
    await page.goto("about:blank");
    await stop();
    await silent.stop();
  });

  test("with a source joules and watts say where they come from", async () => {
    page = await open(chromium, server.page);
    await until(tile("Energy per inference"), /\d [mµ]?J/);
    await page.getByText(/W · model, modelled/).first().waitFor();
    await page.goto(`${server.page}#/energy`);
    await until(tile("Source"), "model");
    await page.getByText("modelled · epyc-milan").waitFor();
    await until(tile("Builds chosen for"), "accuracy");
    await page.getByText("no limit of power").waitFor();
    await until(tile("For models"), /^\d[\d.]* m?W$/);
    const idle = page.locator(".split li", { hasText: "Idle" }).locator("output");
    await until(idle, /\d m?W/);
    // So many watts take the processors of that family when they rest. A busy machine puts two windows into one second.
    const watts = async () => {
      const [, figure, milli] = (await textOf(idle)).match(/^([\d.]+) (m?)W$/);
      return Number(figure) / (milli ? 1000 : 1);
    };
    const expected = 0.45 * os.cpus().length;
    for (let tries = 0; tries < 20 && Math.abs((await watts()) / expected - 1) >= 0.1; tries += 1) await page.waitForTimeout(500);
    assert.ok(Math.abs((await watts()) / expected - 1) < 0.1, `${await watts()} W idle`);
    assert.deepEqual(await objections(page), []);
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`axe-core has no objection in ${colorScheme}`, async () => {
      page = await open(chromium, server.page, { colorScheme });
      for (const view of VIEWS) {
        await page.goto(server.page + view);
        await page.locator("h1").waitFor();
        if (view.startsWith("#/models")) {
          await page.getByRole("button", { name: "Measure layers" }).click();
          await page.getByRole("region", { name: "Layers, table" }).waitFor();
        }
        if (view.startsWith("#/try")) {
          await page.getByRole("button", { name: "Send" }).click();
          await page.locator(".answer").waitFor();
        }
        assert.deepEqual(await objections(page), [], view);
      }
    });
  }

  test("the theme can be chosen and is kept", async () => {
    page = await open(chromium, server.page, { colorScheme: "light" });
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.getByRole("button", { name: "Theme: auto" }).click();
    await page.getByRole("button", { name: "Theme: light" }).click();
    const dark = await ground();
    assert.notEqual(dark, light);
    await page.reload();
    await page.getByRole("button", { name: "Theme: dark" }).waitFor();
    assert.equal(await ground(), dark);
  });

  test("nothing is wider than a phone", async () => {
    page = await open(chromium, server.page, { viewport: { width: 360, height: 740 } });
    for (const view of VIEWS) {
      await page.goto(server.page + view);
      await page.waitForTimeout(300);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, view);
    }
  });

  test("who asks for less motion gets none", async () => {
    page = await open(chromium, server.page, { reducedMotion: "reduce" });
    const moving = await page.evaluate(() => document.getAnimations().length);
    assert.equal(moving, 0);
  });

  test("a keyboard is enough", async () => {
    page = await open(chromium, server.page);
    const { press, focused, tabTo } = keyboard(page, 40, (text, name) => text === name);
    await press("Tab");
    assert.equal(await focused(), "Skip to content");
    await press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
    await tabTo("digits");
    await press("Enter");
    await page.locator("h1:focus", { hasText: "digits" }).waitFor();
    await tabTo("Try it");
    await press("Enter");
    await page.waitForFunction(() => document.querySelector("#request")?.value.length > 0);
    await tabTo("Send");
    await press("Enter");
    await page.locator(".answer").waitFor();
  });
});
