// Pages of other sites, in a browser that keeps the rules: what a named one may ask for, and what no other may.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { after, before, test } from "node:test";

import { browser, MODELLED, sampleOf, Server } from "./running.mjs";

let chromium;
let server;
const sites = {};

/// An empty page on a port of its own, which is an origin of its own.
const site = async () => {
  const pages = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<title>site</title>"));
  pages.listen(0, "127.0.0.1");
  await once(pages, "listening");
  pages.unref();
  return `http://127.0.0.1:${pages.address().port}`;
};

before(async () => {
  [sites.named, sites.other] = await Promise.all([site(), site()]);
  server = new Server({ ...MODELLED, KINGLET__CORS__ORIGINS: sites.named, KINGLET__GRPC__WEB: "true" });
  [chromium] = await Promise.all([browser(), server.start()]);
});
after(async () => {
  await chromium.close();
  await server.stop();
});

/// What a script of a page gets for a request, or that the browser gave it nothing.
const fetched = async (origin, port, path, { method = "POST", headers = {}, body, bytes } = {}) => {
  const page = await chromium.newPage();
  await page.goto(origin);
  const script = async ([url, method, headers, body, bytes]) => {
    try {
      const answer = await fetch(url, { method, headers, body: bytes ? new Uint8Array(bytes) : body });
      const told = [...answer.headers.keys()];
      return { status: answer.status, told, bytes: [...new Uint8Array(await answer.arrayBuffer())] };
    } catch {
      return "nothing";
    }
  };
  const answer = await page.evaluate(script, [`http://127.0.0.1:${port}${path}`, method, headers, body, bytes]);
  await page.close();
  return answer;
};
const rest = (origin, path, options) => fetched(origin, server.ports[0], path, options);
const grpc = (origin, path, options) => fetched(origin, server.ports[1], path, options);

const INFER = "/v2/models/digits/infer";
const json = { headers: { "content-type": "application/json", "kinglet-timeout-ms": "10000" }, body: sampleOf("digits") };

test("a named site is answered, with headers that its scripts may read", async () => {
  while (!(await server.infer("digits")).headers["kinglet-energy-joules"]);
  const answer = await rest(sites.named, INFER, json);
  assert.equal(answer.status, 200);
  assert.ok(answer.told.includes("kinglet-energy-joules"), answer.told);
});

test("no other site gets an answer", async () => {
  assert.equal(await rest(sites.other, INFER, json), "nothing");
  assert.equal(await rest(sites.other, "/v2", { method: "GET" }), "nothing");
});

test("no site gets more of the page of calls than of any answer", async () => {
  assert.equal((await rest(sites.named, "/openapi.json", { method: "GET" })).status, 200);
  assert.equal(await rest(sites.other, "/openapi.json", { method: "GET" }), "nothing");
  assert.equal(await fetched(sites.named, server.ports[2], "/openapi.json", { method: "GET" }), "nothing");
  const page = await chromium.newPage();
  await page.goto(sites.named);
  const blocked = page.waitForEvent("console", { predicate: (message) => message.text().includes("frame-ancestors") });
  await page.evaluate((url) => {
    const frame = document.createElement("iframe");
    frame.src = url;
    document.body.append(frame);
  }, `http://127.0.0.1:${server.ports[0]}/docs/`);
  await blocked;
  await page.close();
});

test("a named site controls nothing", async () => {
  const answer = await rest(sites.named, "/v2/repository/models/digits/unload", { body: "{}" });
  assert.equal(answer.status, 403);
  assert.equal(await fetched(sites.named, server.ports[2], "/metrics", { method: "GET" }), "nothing");
});

test("gRPC-Web is answered in both of its forms", async () => {
  const call = "/inference.GRPCInferenceService/ModelReady";
  // ModelReadyRequest { name: "digits" } behind its frame's five bytes; ModelReadyResponse { ready: true } likewise.
  const sent = [0, 0, 0, 0, 8, 10, 6, ...Buffer.from("digits")];
  const expected = [0, 0, 0, 0, 2, 8, 1];
  const trailers = (bytes) => Buffer.from(bytes.slice(expected.length + 5)).toString();
  const binary = await grpc(sites.named, call, { headers: { "content-type": "application/grpc-web+proto" }, bytes: sent });
  assert.deepEqual(binary.bytes.slice(0, expected.length), expected);
  assert.equal(binary.bytes[expected.length], 0x80);
  assert.match(trailers(binary.bytes), /grpc-status: ?0/);
  const type = "application/grpc-web-text";
  const headers = { "content-type": type, accept: type };
  const text = await grpc(sites.named, call, { headers, body: Buffer.from(sent).toString("base64") });
  const parts = Buffer.from(text.bytes).toString().match(/[^=]+=*/g);
  const decoded = Buffer.concat(parts.map((part) => Buffer.from(part, "base64")));
  assert.deepEqual([...decoded.subarray(0, expected.length)], expected);
  assert.match(trailers(decoded), /grpc-status: ?0/);
});

test("an error over gRPC-Web can be read", async () => {
  const headers = { "content-type": "application/grpc-web+proto" };
  const answer = await grpc(sites.named, "/inference.GRPCInferenceService/Nope", { headers, bytes: [0, 0, 0, 0, 0] });
  const trailers = Buffer.from(answer.bytes).toString();
  assert.ok(answer.told.includes("grpc-status") || trailers.includes("grpc-status:12"), JSON.stringify(answer));
});

test("gRPC-Web from another site gets nothing", async () => {
  const headers = { "content-type": "application/grpc-web+proto" };
  assert.equal(await grpc(sites.other, "/inference.GRPCInferenceService/ServerLive", { headers, bytes: [0, 0, 0, 0, 0] }), "nothing");
});
