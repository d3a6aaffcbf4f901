// The screenshots of docs/: the page of the demo models under load.

import { browser, digitPicture, open, Server } from "./running.mjs";

/// Until the charts are as long as they are at least.
const SECONDS = 62;
const settings = { KINGLET__REPOSITORY__CONTROL: "explicit", KINGLET__REPOSITORY__LOAD_AT_START: "*" };
const server = await new Server(settings).start();
const chromium = await browser();
const stopLoad = server.load();
const shots = [
  ["overview", "#/", "light"],
  ["model", "#/models/digits/1", "light"],
  ["energy", "#/energy", "light"],
  ["try-it", "#/try/digits", "dark"],
];
for (const [name, view, colorScheme] of shots) {
  const page = await open(chromium, server.page + view, { colorScheme, viewport: { width: 1180, height: 700 } });
  if (name === "try-it") {
    await page.setInputFiles("#picture-file", { name: "three.png", mimeType: "image/png", buffer: await digitPicture(page) });
    await page.getByRole("button", { name: "Send" }).click();
    await page.locator(".answer").waitFor();
  } else {
    await page.waitForTimeout(SECONDS * 1000);
  }
  if (name === "model") {
    await page.getByRole("button", { name: "Measure layers" }).click();
    await page.getByText(/multiply-accumulates/).waitFor();
  }
  await page.screenshot({ path: `docs/ui-${name}.png`, fullPage: true });
  await page.context().close();
}
await stopLoad();
await chromium.close();
await server.stop();
