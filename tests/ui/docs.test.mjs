// The page at /docs/: all calls of a listener and of a model, and what happens when one is sent.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { browser, keyboard, objections, open, Server } from "./running.mjs";

const server = new Server({ KINGLET__REPOSITORY__CONTROL: "explicit", KINGLET__REPOSITORY__LOAD_AT_START: "*" });
let chromium;
let page;

before(async () => {
  [chromium] = await Promise.all([browser(), server.start()]);
});
after(async () => {
  await chromium.close();
  await server.stop();
});
afterEach(async () => {
  const faults = page?.faults ?? [];
  await page?.context().close();
  page = undefined;
  assert.deepEqual(faults, []);
});

const docs = (port = server.ports[0]) => `http://127.0.0.1:${port}/docs/`;
const call = (path) => page.locator("details.call", { has: page.locator(`summary code:text-is("${path}")`) });
const opened = async (path) => {
  const part = call(path);
  await part.locator("summary").first().click();
  await part.getByRole("button", { name: "Send" }).waitFor();
  return part;
};
const send = async (part) => {
  await part.getByRole("button", { name: "Send" }).click();
  await part.locator(".result output").waitFor();
  return part.locator(".result output").textContent();
};

test("calls stand by tag, with what they take and answer", async () => {
  page = await open(chromium, docs());
  const tags = await page.locator("h2").allTextContents();
  const protocol = ["Inference", "Models", "Health", "Repository", "Logging", "Trace settings", "Shared memory"];
  assert.deepEqual(tags, [...protocol, "v1", "Document"]);
  const part = await opened("/v2/models/{model}/infer");
  await part.getByText("The body as application/json").click();
  assert.match(await part.locator("pre").first().textContent(), /^\{\n {2}inputs: \[\{\n {4}datatype: "BOOL" \| /);
  assert.ok((await part.locator("dt").allTextContents()).includes("429"));
});

for (const model of ["digits", "vowels", "wine"]) {
  test(`the example of ${model} is answered when its button is pressed`, async () => {
    page = await open(chromium, docs());
    await page.getByLabel("Calls of").selectOption(model);
    await page.locator("h1", { hasText: `Calls of ${model}` }).waitFor();
    for (const path of [`/v2/models/${model}/infer`, `/v1/models/${model}:predict`]) {
      const part = await opened(path);
      assert.equal(await send(part), "200 OK");
      assert.match(await part.locator(".result .body").textContent(), /"model_name": "|"predictions": \[/);
    }
  });
}

test("a model's schema is its signature", async () => {
  page = await open(chromium, `${docs()}#/models/wine`);
  const part = await opened("/v2/models/wine/infer");
  await part.getByText("The body as application/json").click();
  assert.match(await part.locator("pre").first().textContent(), /shape: \[integer 0 … 32, 13\]/);
});

test("paths, queries and headers are what the form says", async () => {
  page = await open(chromium, docs(server.ports[2]));
  const part = await opened("/v2/models/{model}/versions/{version}/layers");
  await part.getByText("Optional: 3").click();
  await part.getByLabel("batch").fill("2");
  const asked = page.waitForRequest("**/layers?batch=2");
  assert.equal(await send(part), "200 OK");
  assert.ok((await asked).url().endsWith("/v2/models/digits/versions/1/layers?batch=2"));
  assert.match(await part.locator(".result .body").textContent(), /"batch": 2/);
  const infer = await opened("/v2/models/{model}/infer");
  await infer.getByText("Optional: 5").click();
  await infer.getByLabel("kinglet-min-accuracy").fill("2");
  assert.equal(await send(infer), "400 Bad Request");
  assert.match(await infer.locator(".result .body").textContent(), /from 0 to 1/);
  page.faults = page.faults.filter((fault) => !fault.includes("status of 400"));
});

test("a page of this server controls it", async () => {
  page = await open(chromium, docs());
  for (const path of ["/v2/repository/models/{model}/unload", "/v2/repository/models/{model}/load"]) {
    const part = await opened(path);
    await part.getByRole("textbox", { name: /^model/ }).fill("wine");
    assert.equal(await send(part), "200 OK");
  }
});

test("a file is sent as it is", async () => {
  page = await open(chromium, `${docs()}#/models/wine`);
  const part = await opened("/v2/models/wine/infer");
  await part.getByLabel("Content type").selectOption("application/octet-stream");
  const buffer = Buffer.from(new Float32Array(13).fill(1).buffer);
  await part.getByLabel("Body from a file").setInputFiles({ name: "row", mimeType: "application/octet-stream", buffer });
  await part.getByText("Optional: 5").click();
  await part.getByLabel("Inference-Header-Content-Length").fill("0");
  assert.equal(await send(part), "200 OK");
  assert.match(await part.locator(".result .body").textContent(), /of application\/octet-stream/);
});

test("what is no model has no document", async () => {
  page = await open(chromium, docs());
  await page.goto(`${docs()}#/models/nothing`);
  await page.getByText('model "nothing" is not found').waitFor();
  page.faults = page.faults.filter((fault) => !fault.includes("status of 404"));
});

test("other servers' paths lead here", async () => {
  page = await open(chromium, docs());
  for (const path of ["/docs", "/v2/docs"]) {
    await page.goto(`http://127.0.0.1:${server.ports[0]}${path}`);
    await page.locator("h1", { hasText: "Calls of the server" }).waitFor();
  }
  await page.goto(`http://127.0.0.1:${server.ports[0]}/v2/models/wine/versions/1/docs`);
  await page.locator("h1", { hasText: "Calls of wine version 1" }).waitFor();
  assert.equal(await page.getByLabel("Calls of").inputValue(), "wine/1");
});

for (const colorScheme of ["light", "dark"]) {
  test(`axe-core has no objection in ${colorScheme}`, async () => {
    page = await open(chromium, docs(), { colorScheme });
    await opened("/v2/repository/index");
    assert.deepEqual(await objections(page), []);
    await page.goto(`${docs()}#/models/digits`);
    await page.locator("h1", { hasText: "digits" }).waitFor();
    const part = await opened("/v2/models/digits/infer");
    await send(part);
    for (const title of await part.locator("details summary").all()) await title.click();
    assert.deepEqual(await objections(page), []);
  });
}

test("nothing is wider than a phone", async () => {
  page = await open(chromium, docs(), { viewport: { width: 360, height: 740 } });
  await opened("/v2/models/{model}/versions/{version}/infer");
  const width = () => page.evaluate(() => document.documentElement.scrollWidth);
  assert.equal(await width(), 360);
  await page.goto(`${docs()}#/models/digits`);
  await page.locator("h1", { hasText: "digits" }).waitFor();
  const part = await opened("/v2/models/digits/infer");
  await send(part);
  for (const title of await part.locator("details summary").all()) await title.click();
  assert.equal(await width(), 360);
});

test("a keyboard is enough", async () => {
  page = await open(chromium, docs());
  const { press, focused, tabTo } = keyboard(page, 60, (text, name) => text.startsWith(name));
  await press("Tab");
  assert.equal(await focused(), "Skip to content");
  await press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await tabTo("POST/v2/models/{model}/infer");
  await press("Enter");
  await page.getByRole("button", { name: "Send" }).first().waitFor();
  await tabTo("Send");
  await press("Enter");
  await page.locator(".result output", { hasText: "200 OK" }).waitFor();
});
