// Shows a page in a browser and prints its console. At "leave" on standard input it closes the tab, but not the browser.
// Usage: node browser.mjs chrome|firefox EXECUTABLE URL
import { createInterface } from "node:readline";
import puppeteer from "puppeteer-core";

const [kind, executablePath, url] = process.argv.slice(2);
const args = kind === "chrome" ? ["--no-sandbox", "--disable-gpu", "--disable-quic"] : [];
const browser = await puppeteer.launch({ browser: kind, executablePath, args, acceptInsecureCerts: true });
const page = await browser.newPage();
page.on("console", (message) => console.log(message.text()));
await page.goto(url);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "leave") await page.close();
}
await browser.close();
