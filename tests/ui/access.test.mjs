// The pages where callers must say who they are: a browser asks for a password, and what the key may is all that is shown.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { browser, open, Server } from "./running.mjs";

const folder = mkdtempSync(join(tmpdir(), "kinglet-access-"));
const tenants = join(folder, "tenants.toml");
const tenant = (name, scopes) => {
  const sha256 = createHash("sha256").update(`key of ${name}`).digest("hex");
  return `[tenants.${name}]\nscopes = ${JSON.stringify(scopes)}\nkeys = [{ name = "only", sha256 = "${sha256}" }]\n`;
};
const people = [tenant("operator", ["*"]), tenant("watcher", ["admin", "read:wine"]), tenant("client", ["infer:*"])];
writeFileSync(tenants, people.join(""));
const server = new Server({ KINGLET__ACCESS__TENANTS_FILE: tenants });
const password = (name) => ({ httpCredentials: { username: "anybody", password: `key of ${name}` } });
let chromium;

before(async () => {
  [chromium] = await Promise.all([browser(), server.start()]);
});
after(async () => {
  await chromium.close();
  await server.stop();
  rmSync(folder, { recursive: true });
});

test("without a password there is no page", async () => {
  const context = await chromium.newContext();
  const page = await context.newPage();
  for (const path of ["/ui/", "/docs/"]) {
    const answer = await page.goto(`${server.admin}${path}`).catch((error) => error);
    // Chromium without a person to ask gives up.
    assert.ok(answer instanceof Error ? /ERR_INVALID_AUTH_CREDENTIALS/.test(answer.message) : answer.status() === 401, `${answer}`);
  }
  await context.close();
});

test("an operator sees and tries everything", async () => {
  const page = await open(chromium, server.page, password("operator"));
  for (const model of ["digits", "vowels", "wine"]) await page.getByRole("link", { name: model }).first().waitFor();
  const status = await page.evaluate(async () => {
    const sample = await (await fetch("/ui/models/wine/sample")).text();
    return (await fetch("/v2/models/wine/infer", { method: "POST", body: sample })).status;
  });
  assert.equal(status, 200);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("who may read one model sees that one", async () => {
  const page = await open(chromium, server.page, password("watcher"));
  await page.getByRole("link", { name: "wine" }).first().waitFor();
  assert.equal(await page.getByRole("link", { name: "digits" }).count(), 0);
  assert.equal(await page.evaluate(async () => (await fetch("/v2/models/digits")).status), 403);
  await page.context().close();
});

test("who is no operator gets no page", async () => {
  const context = await chromium.newContext(password("client"));
  const answer = await (await context.newPage()).goto(server.page);
  assert.equal(answer.status(), 403);
  await context.close();
});
