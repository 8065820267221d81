// What `sse-bridge.js` and `sse-console.js` do in any browser. Posts one line for each check; see tests/matrix/test_modules.py.
import { EventParser, follow } from "/modules/sse-bridge.js";
import "/modules/sse-console.js";
import { plain } from "/modules/terminal.js";

const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
const same = (seen, expected) => {
  if (JSON.stringify(seen) !== JSON.stringify(expected)) throw new Error(`${JSON.stringify(seen)} is not ${JSON.stringify(expected)}`);
};
const { vectors, texts } = await (await fetch("/cases")).json();

async function messages(url, options) {
  const seen = [];
  for await (const message of follow(url, options)) seen.push(message);
  return seen;
}

function made(attributes = {}) {
  const element = document.createElement("sse-console");
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  document.body.replaceChildren(element);
  return [element, (id) => element.shadowRoot.getElementById(id)];
}

const checks = {
  parser() {
    for (const { id, input, expected, retry, last } of vectors) {
      const bytes = Uint8Array.from(atob(input), (character) => character.charCodeAt(0));
      for (const size of [1, 2, 7, bytes.length || 1]) {
        const events = [];
        const parser = new EventParser({ event: (event, data, id) => events.push({ event, data, id }) });
        for (let at = 0; at < bytes.length; at += size) parser.push(bytes.subarray(at, at + size));
        same([id, size, events, parser.retry, parser.lastEventId], [id, size, expected, retry, last]);
      }
    }
  },
  terminal() {
    same(texts.map(([line]) => plain(line)), texts.map(([, shown]) => shown));
  },
  async follows() {
    const seen = await messages("/run-sse/?script=three");
    same(seen.map(({ type, line, code }) => [type, line ?? code]).slice(1), [["stdout", "one"], ["stderr", "two"], ["exit", 3]]);
  },
  async "follows by GET"() {
    same((await messages("/run-sse/?script=three", { method: "GET" })).at(-1).code, 3);
  },
  async refused() {
    same((await messages("/run-sse/?script=none")).at(-1).status, 404);
    same((await messages("/run-sse/", { run: "A".repeat(16) })).at(-1).code, "run_unknown");
  },
  async stops() {
    const run = follow("/run-sse/?script=waits");
    for await (const { type, code } of run) {
      if (type === "stdout") same(await run.stop(), "ended");
      if (type === "error") same(code, "cancelled");
    }
  },
  async "shows a run"() {
    const [element, get] = made({ src: "/run-sse/?script=three", autostart: "" });
    while (element.state !== "over" || get("state").dataset.state !== "exit") await frame();
    await frame();
    same([get("badge").textContent, element.text], ["exit code 3", "one\ntwo\n"]);
  },
  async "shows many lines"() {
    const [element, get] = made();
    for (let n = 1; n <= 1_000_000; n += 1) element.write({ type: "stdout", line: `line ${n}` });
    await frame();
    const numbers = () => [...get("rows").children].map((row) => Number(row.dataset.number));
    same([numbers().at(-1), numbers().length < 60], [1_000_000, true]);
    get("output").scrollTop = 0;
    await frame();
    same(numbers()[0], 1);
    get("output").scrollTop = get("output").scrollHeight / 2;
    await frame();
    const middle = numbers()[Math.floor(numbers().length / 2)];
    same(Math.abs(middle - 500_000) < 100, true);
    get("find").click();
    get("query").value = "line 77777";
    get("query").dispatchEvent(new Event("input"));
    while (!get("count").textContent.endsWith("lines")) await frame();
    same(get("count").textContent, "11 lines");
    get("next").click();
    await frame();
    same(get("rows").querySelector(".current mark")?.textContent, "line 77777");
  },
};

const results = [];
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    results.push([name, ""]);
  } catch (error) {
    results.push([name, String(error)]);
  }
}
await fetch("/results", { method: "POST", body: JSON.stringify(results) });
