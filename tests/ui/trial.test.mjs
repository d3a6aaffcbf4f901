// One request by hand: from the sample, made up, written, or a picture; and what the page makes of the answer.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { joules } from "../../src/frontend/admin/page/format.js";
import { browser, digitPicture, MODELLED, objections, open, sampleOf, Server } from "./running.mjs";

const server = new Server(MODELLED);
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
  const faults = page.faults;
  await page.context().close();
  assert.deepEqual(faults, []);
});

const trial = async (model) => {
  page = await open(chromium, `${server.page}#/try/${model}`);
  await page.waitForFunction(() => document.querySelector("#request").value.length > 0);
};
const send = async () => {
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator(".answer").waitFor();
};
const best = () => page.locator(".classes .best .label").first().textContent();

test("the sample is there, and its answer is a class with time and batch", async () => {
  await trial("digits");
  assert.equal(await page.locator("#request").inputValue(), sampleOf("digits"));
  await send();
  assert.equal(await best(), "3");
  const answer = await page.locator(".answer").textContent();
  assert.match(answer, /Round trip[\d.]+ [µm]?s/);
  assert.match(answer, /In the model[\d.]+ [µm]s/);
  assert.match(answer, /Batch1sent for: idle/);
  await page.getByText("The answer as it came").click();
  assert.match(await page.locator("pre").textContent(), /"model_name": "digits"/);
});

test("joules are those of the answer's headers", async () => {
  // Whoever asks before the first window has ended is told nothing.
  while (!(await server.infer("digits")).headers["kinglet-energy-joules"]) await sleep(100);
  await trial("digits");
  const told = page.waitForResponse("**/infer");
  await send();
  const shown = joules(Number((await told).headers()["kinglet-energy-joules"]));
  assert.ok((await page.locator(".answer").textContent()).includes(`Energy${shown}source: model`), shown);
});

test("rows, labels of probabilities and other outputs are shown", async () => {
  await trial("wine");
  await send();
  assert.deepEqual(await page.locator(".answer h4").allTextContents(), ["Row 1", "Row 2", "Row 3"]);
  assert.deepEqual(await page.locator(".classes .best .label").allTextContents(), ["cultivar 1", "cultivar 2", "cultivar 3"]);
  await page.getByRole("region", { name: "First values of label, table" }).waitFor();
});

test("made-up numbers fit a signature with open axes", async () => {
  await trial("vowels");
  await page.getByRole("button", { name: "Made up" }).click();
  assert.match(await page.locator("#request").inputValue(), /"shape":\[1,12,16\]/);
  await send();
  await page.getByText("FP32 · [1, 9, 16]").waitFor();
});

test("JSON is sent as it is written, and scores come raw where classes are not wanted", async () => {
  await trial("wine");
  const inputs = [{ name: "X", datatype: "FP32", shape: [1, 13], data: [13.77, 1.9, 2.68, 17.1, 115, 3, 2.79, 0.39, 1.68, 6.3, 1.13, 2.93, 1375] }];
  await page.locator("#request").fill(JSON.stringify({ inputs }));
  await page.getByLabel("Ask for classes").uncheck();
  await send();
  assert.equal(await page.locator(".classes").count(), 0);
  await page.getByText("FP32 · [1, 3]").waitFor();
});

test("what is no JSON is not sent, what does not fit is refused in the server's words", async () => {
  await trial("wine");
  await page.locator("#request").fill("{");
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByRole("alert").filter({ hasText: "This is not JSON" }).waitFor();
  await page.locator("#request").fill('{"inputs":[{"name":"X","datatype":"FP32","shape":[1,2],"data":[1,2]}]}');
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByRole("alert").filter({ hasText: "status 400" }).waitFor();
  assert.deepEqual(await objections(page), []);
  // The browser tells of a refused call by itself.
  page.faults = page.faults.filter((fault) => !fault.includes("status of 400"));
});

test("a PNG that is chosen becomes the tensor it was made from", async () => {
  await trial("digits");
  await page.setInputFiles("#picture-file", { name: "three.png", mimeType: "image/png", buffer: await digitPicture(page) });
  await page.getByText("three.png: 32 × 32 → 32 × 32, NCHW").waitFor();
  const [sent] = JSON.parse(await page.locator("#request").inputValue()).inputs;
  const [{ data: wanted }] = JSON.parse(sampleOf("digits")).inputs;
  assert.deepEqual(sent.shape, [1, 1, 32, 32]);
  const off = Math.max(...sent.data.map((value, i) => Math.abs(value - wanted[i])));
  assert.ok(off < 0.005, `a pixel is off by ${off}`);
  await send();
  assert.equal(await best(), "3");
});

test("a PNG that is dropped is normalised as chosen", async () => {
  await trial("digits");
  const bytes = (await digitPicture(page)).toString("base64");
  const dropped = await page.evaluateHandle((text) => {
    const transfer = new DataTransfer();
    const content = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    transfer.items.add(new File([content], "dropped.png", { type: "image/png" }));
    return transfer;
  }, bytes);
  await page.dispatchEvent(".drop", "drop", { dataTransfer: dropped });
  await page.getByText("dropped.png: 32 × 32").waitFor();
  await page.getByLabel("Normalisation").selectOption("−1 to 1");
  await page.getByText("value = (pixel ÷ 255 − 0.5) ÷ 0.5").waitFor();
  const values = async () => JSON.parse(await page.locator("#request").inputValue()).inputs[0].data;
  assert.deepEqual([Math.min(...(await values())), Math.max(...(await values()))], [-1, 1]);
  await page.getByLabel("Invert").check();
  assert.equal((await values())[0], 1, "paper was dark and is light now");
});

test("a file that is no picture is said to be none", async () => {
  await trial("digits");
  await page.setInputFiles("#picture-file", { name: "x.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
  await page.getByText("cannot read this file as a picture").waitFor();
});
