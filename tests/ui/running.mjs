// A running Kinglet, requests to it, and a browser that watches itself: what the suites of the page share.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(process.env.UI_MODULES);
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/// One process on three free ports of loopback, which it keeps when it is started again.
export class Server {
  constructor(settings = {}, repository = "models") {
    this.settings = settings;
    this.repository = repository;
  }

  async start() {
    this.ports ??= await freePorts(3);
    const [rest, grpc, admin] = this.ports.map((port) => `127.0.0.1:${port}`);
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("KINGLET__"));
    const env = { ...Object.fromEntries(inherited), ...this.settings };
    const command = ["serve", "--repository", this.repository, "--http", rest, "--grpc", grpc, "--admin", admin];
    this.process = spawn(process.env.KINGLET_BIN, command, { env, stdio: "ignore" });
    // A test that failed leaves its server behind: that ends with the suite, and does not hold it up.
    this.process.unref();
    process.on("exit", () => this.process.kill("SIGKILL"));
    this.admin = `http://${admin}`;
    this.page = `${this.admin}/ui/`;
    for (let turn = 0; turn < 400; turn += 1) {
      if ((await this.ask("GET", "/v2/health/ready").catch(() => undefined))?.status === 200) return this;
      await sleep(50);
    }
    throw new Error("the server did not become ready");
  }

  async stop() {
    this.process.ref();
    const ended = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await ended;
  }

  /// A plain call of no browser, to the REST listener or to another port.
  ask(method, path, { body, headers, port = this.ports[0] } = {}) {
    return new Promise((resolve, reject) => {
      const request = http.request({ host: "127.0.0.1", port, method, path, headers, agent: AGENT }, (response) => {
        let text = "";
        response.on("data", (part) => (text += part));
        response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text }));
      });
      request.on("error", reject);
      request.end(body);
    });
  }

  infer = (model) => this.ask("POST", `/v2/models/${model}/infer`, { body: sampleOf(model) });

  /// Requests one after another, a few at a time, until the function that it returns is called.
  load(models = ["digits", "wine"]) {
    let ended = false;
    const client = async (model) => {
      while (!ended) {
        await this.infer(model).catch(() => {});
        await sleep(10 + Math.random() * 20);
      }
    };
    const clients = models.flatMap((model) => [client(model), client(model)]);
    return async () => {
      ended = true;
      await Promise.all(clients);
    };
  }
}

export const sampleOf = (model) => readFileSync(`models/${model}/sample_request.json`, "utf8");

export const browser = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", `--host-resolver-rules=MAP ${NAME} 127.0.0.1`] });

/// A name that the browser finds the server by.
export const NAME = "kinglet.test";

/// A page whose `faults` are what went wrong in it: errors, and what its policy has forbidden.
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.stack));
  page.on("console", (message) => {
    if (message.type() === "error" || message.text().includes("Content Security Policy")) page.faults.push(message.text());
  });
  await page.goto(url);
  await page.locator("#pulse[data-state=live]").waitFor();
  return page;
}

/// Keys, what they lead to, and a way by Tab to what `is` says is named so, within so many turns.
export function keyboard(page, turnsMax, is) {
  const press = (key) => page.keyboard.press(key);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim());
  const tabTo = async (name) => {
    for (let turn = 0; turn < turnsMax; turn += 1) {
      if (is(await focused(), name)) return;
      await press("Tab");
    }
    throw new Error(`no way to ${name} by Tab`);
  };
  return { press, focused, tabTo };
}

/// What axe-core objects to.
export async function objections(page) {
  // Evaluated by the debugger, which the page's policy does not bind.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary}`).join(" | ")}`);
}

/// A row of the digits model's sample as a PNG: the 32 by 32 image that it was made from.
export async function digitPicture(page) {
  const [{ data }] = JSON.parse(sampleOf("digits")).inputs;
  const url = await page.evaluate((values) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [32, 32];
    const image = new ImageData(32, 32);
    values.forEach((value, i) => image.data.set([value * 255, value * 255, value * 255, 255], 4 * i));
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas.toDataURL("image/png");
  }, data);
  return Buffer.from(url.split(",")[1], "base64");
}

async function freePorts(count) {
  const held = await Promise.all(Array.from({ length: count }, async () => {
    const socket = net.createServer().listen(0, "127.0.0.1");
    await once(socket, "listening");
    return socket;
  }));
  const ports = held.map((socket) => socket.address().port);
  await Promise.all(held.map((socket) => new Promise((closed) => socket.close(closed))));
  return ports;
}

/// The model's source of energy, with coefficients that are known: any machine has it.
export const MODELLED = { KINGLET__METERING__SOURCE: "model", KINGLET__METERING__MODEL_COEFFICIENTS: "epyc-milan" };

const AGENT = new http.Agent({ keepAlive: true });
