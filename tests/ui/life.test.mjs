// Models that come and go by request, a server that goes away and comes back, and calls that other sites would make.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";

import { browser, NAME, objections, open, Server } from "./running.mjs";

const server = new Server({ KINGLET__REPOSITORY__CONTROL: "explicit", KINGLET__REPOSITORY__LOAD_AT_START: "digits,wine" });
let chromium;

before(async () => {
  [chromium] = await Promise.all([browser(), server.start()]);
});
after(async () => {
  await chromium.close();
  await server.stop();
});

const rowOf = (page, model) => page.getByRole("row", { name: new RegExp(model) });

test("a model is loaded and unloaded, by keyboard too", async () => {
  const page = await open(chromium, server.page);
  await rowOf(page, "vowels").getByText("not loaded").waitFor();
  await page.getByRole("button", { name: "Load vowels" }).click();
  await rowOf(page, "vowels").getByText("ready", { exact: true }).waitFor();
  assert.equal((await server.ask("GET", "/v2/models/vowels/ready")).status, 200);

  await page.getByRole("button", { name: "Unload vowels" }).focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "Unload vowels?" });
  await dialog.waitFor();
  assert.deepEqual(await objections(page), []);
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.equal((await server.ask("GET", "/v2/models/vowels/ready")).status, 200, "Escape keeps it");

  await page.keyboard.press("Enter");
  await dialog.getByRole("button", { name: "Unload" }).press("Enter");
  await rowOf(page, "vowels").getByText("not loaded").waitFor();
  assert.notEqual((await server.ask("GET", "/v2/models/vowels/ready")).status, 200);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("what a load is refused for is told", async () => {
  const page = await open(chromium, server.page);
  await page.route("**/load", (route) => route.fulfill({ status: 400, body: '{"error":"the file is broken"}' }));
  await page.getByRole("button", { name: "Load vowels" }).click();
  await page.getByText("the file is broken").waitFor();
  await page.context().close();
});

test("a server that goes away is missed, and found again", async () => {
  await server.infer("digits");
  const page = await open(chromium, server.page);
  await rowOf(page, "digits").getByText("ready", { exact: true }).waitFor();
  await server.stop();
  await page.locator("#pulse[data-state=lost]").waitFor();
  await page.getByRole("alert").filter({ hasText: "The server does not answer" }).waitFor();
  // The last values stay.
  await rowOf(page, "digits").getByText("ready", { exact: true }).waitFor();
  const asked = [];
  page.on("request", (request) => request.url().endsWith("/metrics") && asked.push(Date.now()));
  await page.waitForTimeout(4500);
  assert.ok(asked.length >= 1 && asked.length <= 4, `${asked.length} attempts in 4.5 s`);

  server.settings = { KINGLET__REPOSITORY__CONTROL: "none" };
  await server.start();
  await page.locator("#pulse[data-state=live]").waitFor({ timeout: 20_000 });
  assert.ok(await page.getByRole("alert").isHidden());
  // It is another server now: with every model, and its own word on control.
  await page.getByText('repository.control is "none"').waitFor();
  await rowOf(page, "vowels").getByText("ready", { exact: true }).waitFor();
  const unexpected = page.faults.filter((fault) => !fault.includes("ERR_CONNECTION"));
  assert.deepEqual(unexpected, []);
  await page.context().close();
});

test("a variant stands beside its version, has a view of its own, and can be tried", async () => {
  const repository = mkdtempSync(`${tmpdir()}/kinglet-ui-`);
  cpSync("models/wine", `${repository}/wine`, { recursive: true });
  cpSync("models/wine/1/model.onnx", `${repository}/wine/1/variants/small/model.onnx`);
  const beside = await new Server({}, repository).start();
  const page = await open(chromium, beside.page);
  await page.getByRole("link", { name: "small" }).click();
  await page.getByRole("heading", { name: "wine, variant small" }).waitFor();
  assert.equal(await page.locator(".siblings [aria-current]").textContent(), "small");
  await page.locator("main").getByRole("link", { name: "Try it" }).click();
  assert.equal(await page.getByLabel("Build").locator("option:checked").textContent(), "version 1, variant small");
  await page.waitForFunction(() => document.querySelector("#request").value.length > 0);
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByText("The answer as it came").click();
  assert.match(await page.locator("pre").textContent(), /"kinglet_variant": "small"/);
  await page.goto(`${beside.page}#/models/wine/1/small`);
  await page.locator(".tile", { hasText: "Requests" }).filter({ hasText: "none refused" }).waitFor();
  assert.deepEqual([await objections(page), page.faults], [[], []]);
  await page.context().close();
  await beside.stop();
  rmSync(repository, { recursive: true });
});

test("other sites cannot drive the server through a visitor's browser", async () => {
  const evil = http.createServer((_, response) => response.end("<!doctype html><title>evil</title>")).listen(0, "127.0.0.1");
  const context = await chromium.newContext();
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${evil.address().port}/`);
  const refused = [];
  page.on("response", (response) => refused.push(response.status()));
  const urls = [`${server.admin}/admin/config/reload`, `${server.admin}/v2/models/digits/infer`, `http://127.0.0.1:${server.ports[0]}/v2/repository/index`];
  for (const url of urls) {
    const got = page.waitForResponse(url);
    await page.evaluate((url) => fetch(url, { method: "POST", mode: "no-cors", body: "{}" }).catch(() => {}), url);
    assert.equal((await got).status(), 403, url);
  }
  await context.close();
  evil.close();
});

test("under a name that is not known the page says what to do, under one that is it works", async () => {
  const page = await chromium.newPage();
  await page.goto(server.page.replace("127.0.0.1", NAME));
  await page.getByRole("alert").filter({ hasText: "admin.browser_hosts" }).waitFor();
  await page.close();
  const named = await new Server({ KINGLET__ADMIN__BROWSER_HOSTS: NAME }).start();
  const known = await open(chromium, named.page.replace("127.0.0.1", NAME));
  assert.deepEqual(known.faults, []);
  await known.context().close();
  await named.stop();
});

test("the page may be framed by nobody, and is not there where it is not wanted", async () => {
  const told = await server.ask("GET", "/ui/", { port: server.ports[2] });
  assert.match(told.headers["content-security-policy"], /default-src 'none';.*frame-ancestors 'none'/);
  assert.equal((await server.ask("GET", "/ui", { port: server.ports[2] })).headers.location, "ui/");
  const without = await new Server({ KINGLET__ADMIN__UI: "false" }).start();
  for (const [method, path] of [["GET", "/ui/"], ["GET", "/ui/page.js"], ["POST", "/v2/models/digits/infer"]]) {
    assert.equal((await without.ask(method, path, { port: without.ports[2] })).status, 404, path);
  }
  assert.equal((await without.ask("GET", "/metrics", { port: without.ports[2] })).status, 200);
  await without.stop();
});
