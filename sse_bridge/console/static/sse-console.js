/**
 * `<sse-console src="/run-sse/">`: runs a command through the bridge and shows its output as a terminal would.
 *
 * See docs/browser.md for attributes, properties, events, and how to style it.
 *
 * @module
 */

import { Announcer } from "./announcer.js";
import { copy, download, pieces } from "./exporting.js";
import { follow } from "./follow.js";
import { inHash, inSession } from "./memory.js";
import { build } from "./panel.js";
import { Search } from "./search.js";
import { STATES, STOPPED, ending, gapWords, going, stopFailed } from "./status.js";
import { LineStore } from "./store.js";
import { styles } from "./styles.js";
import { counted, duration, grouped } from "./texts.js";
import { View } from "./view.js";

/** @typedef {import("./follow.js").Run} Run */
/** @typedef {import("./follow.js").Options} Options */
/** @typedef {import("./messages.js").Message} Message */
/** @typedef {import("./status.js").Status} Status */

/** Milliseconds between two looks at the clock. */
const TICK = 100;
/** Lines that are kept, unless the page says otherwise: they take a tab some 100 MB. */
const MOST_LINES = 1_000_000;
/** Where lines are wrapped at first. */
const NARROW = "(max-width: 34rem)";
/** Milliseconds for what a script that was stopped had printed, and for the run's last message. */
const LAST_WORDS = 2_000;
/** Milliseconds for which a button says what it has done. */
const SAID = 2_000;

export class SSEConsole extends HTMLElement {
  static observedAttributes = ["src", "controls", "label", "wrap", "timestamps", "max-lines"];

  /** The run that is shown. @type {Run | null} */
  run = null;
  /** Options of `follow` for runs that this element starts: headers, a body, a key. @type {Options} */
  options = {};
  /** Events and reconnections so far. */
  counts = { events: 0, reconnects: 0 };

  #get;
  #store = new LineStore(MOST_LINES);
  #view;
  #search;
  #announcer;
  /** What has become of Stop. @type {"" | "asking" | "answered" | "failed"} */
  #stopping = "";
  #isWatching = false;
  #started = 0;
  #clock = 0;
  #left = new AbortController();

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [styles()];
    const get = (this.#get = build(root));
    this.#announcer = new Announcer(get("announcer"));
    this.#view = new View(this.#store, { scroller: get("output"), space: get("space"), rows: get("rows") }, () => this.#drawn());
    this.#search = new Search(root, get, this.#view);
    this.#listen();
    this.#say(STATES.idle);
  }

  connectedCallback() {
    this.#left.abort();
    this.#left = new AbortController();
    if (this.getAttribute("memory") === "hash") {
      window.addEventListener("hashchange", () => this.#followMemory(), { signal: this.#left.signal });
    }
    if (matchMedia(NARROW).matches) this.toggleAttribute("wrap", true);
    this.#showButtons();
    if (this.run) return; // it was moved
    if (!this.#followMemory() && this.hasAttribute("autostart")) this.start();
  }

  /** Leaving the document closes the connection; the run goes on for its grace period. */
  disconnectedCallback() {
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.#left.abort();
      this.run?.close();
      this.run = null;
      window.clearInterval(this.#clock);
    });
  }

  /** @param {string} name @param {string | null} _ @param {string | null} value */
  attributeChangedCallback(name, _, value) {
    if (name === "src" || name === "controls") this.#showButtons();
    else if (name === "label") this.#get("output").setAttribute("aria-label", value ?? "Output");
    else if (name === "max-lines") this.#store.mostRows = Number(value) || MOST_LINES;
    else this.#toggle(name === "wrap" ? "wrap" : "times", value !== null);
  }

  // ---- For the page

  /** `idle`, or the state of the run: `starting`, `waiting`, `running`, `reconnecting`, `over`. */
  get state() {
    return this.run?.state ?? "idle";
  }

  /** All lines as they are shown. */
  get text() {
    return pieces(this.#store).join("");
  }

  /** How many lines came, and how many gaps say are missing. */
  get lines() {
    return { received: this.#store.lines, missing: this.#store.missing };
  }

  /** Starts a run at `src` and shows it. @param {Options} [options] */
  start(options = {}) {
    const memory = this.#memory();
    memory?.set(null);
    const method = this.getAttribute("method")?.toUpperCase() === "GET" ? "GET" : "POST";
    return this.follow(follow(this.getAttribute("src") ?? "", { method, ...this.options, ...options, memory }));
  }

  /** Shows a run that `follow()` has made. @param {Run} run */
  follow(run) {
    this.run?.close();
    this.clear();
    this.run = run;
    this.#stopping = "";
    this.#isWatching = run.token !== null;
    this.#started = performance.now();
    this.#get("elapsed-name").textContent = this.#isWatching ? "Watched" : "Elapsed";
    run.addEventListener("statechange", () => { if (run === this.run) this.#changed(); });
    this.#changed();
    this.#read(run);
    return run;
  }

  /** Ends the run and its command. */
  async stop() {
    const run = this.run;
    if (!run) return;
    this.#stopping = "asking";
    this.#say(run.token ? STATES.asking : STATES.naming);
    this.#showButtons();
    let outcome = "";
    let status;
    try {
      outcome = await run.stop();
      status = run.outcome?.type === "exit" ? ending(run.outcome) : /** @type {Status} */ (STOPPED[outcome]);
    } catch (error) {
      status = run.outcome ? ending(run.outcome) : stopFailed(error, run.state === "over");
    }
    if (run !== this.run) return; // it shows another run by now
    this.#stopping = outcome ? "answered" : "failed";
    this.#say(status);
    this.#showButtons();
    if (outcome !== "requested" && outcome) setTimeout(() => run.close(), LAST_WORDS);
  }

  /** Removes all lines. */
  clear() {
    this.#store = new LineStore(this.#store.mostRows);
    this.#view.reset(this.#store);
    this.#announcer.clear();
    this.counts = { events: 0, reconnects: 0 };
    this.#search.begin(this.#store);
  }

  /** Shows a message that came from elsewhere. @param {Message} message */
  write(message) {
    this.#receive(message, Date.now());
    this.#view.schedule();
  }

  // ---- A run

  #memory() {
    const name = this.getAttribute("memory");
    return name === "hash" ? inHash() : name === "session" ? inSession() : null;
  }

  /** Follows the run that the address or the session names. */
  #followMemory() {
    const token = this.#memory()?.get();
    if (!token || !this.hasAttribute("src")) return false;
    if (token !== this.run?.token) {
      this.follow(follow(this.getAttribute("src") ?? "", { ...this.options, run: token, memory: this.#memory() }));
    }
    return true;
  }

  /** @param {Run} run */
  async #read(run) {
    for await (const batch of run.batches()) {
      if (run !== this.run) return;
      const now = Date.now();
      for (const message of batch) this.#receive(message, now);
      this.#view.schedule();
    }
    if (run === this.run) this.#over(run);
  }

  /** @param {Message} message @param {number} now */
  #receive(message, now) {
    if (message.type !== "start" && message.status === undefined) this.counts.events += 1;
    if (message.type === "stdout" || message.type === "stderr") {
      const text = String(message.line ?? "");
      this.#store.add(message.type, text, message.partial === true, now);
      if (!message.partial) this.#announcer.line(message.type === "stderr" ? `stderr: ${text}` : text);
      return;
    }
    if (message.type === "gap") {
      const words = gapWords(message, this.run?.lastEventId ?? "");
      this.#store.gap(words, message.dropped ?? 0, now);
      this.#announcer.line(words);
    }
    this.dispatchEvent(new CustomEvent("message", { detail: message }));
  }

  #changed() {
    const run = /** @type {Run} */ (this.run);
    if (!this.#stopping && run.state !== "over") this.#say(this.#going(run));
    this.counts.reconnects = run.reconnects;
    this.#showButtons();
    this.#tick();
    this.dispatchEvent(new Event("statechange"));
  }

  /** @param {Run} run @returns {Status} */
  #going(run) {
    if (run.state !== "running") return going(run);
    return { ...STATES[this.#isWatching ? "watching" : "running"], message: this.getAttribute("note") ?? "" };
  }

  /** The loop has ended. What Stop was told is not replaced by the run's own word for it. @param {Run} run */
  #over(run) {
    const isTold = this.#stopping === "asking" || this.#stopping === "answered";
    if (run.outcome && !(isTold && run.outcome.code === "cancelled")) this.#say(ending(run.outcome));
    else if (!run.outcome && !isTold) this.#say(STATES.over);
    this.#showButtons();
    this.#view.schedule();
  }

  // ---- What is shown

  /** @param {Status} status */
  #say(status) {
    const state = this.#get("state");
    state.dataset.state = status.state;
    state.dataset.code = status.code ?? "";
    this.#get("badge").textContent = status.label;
    this.#get("message").textContent = status.message ?? "";
    this.#get("message").hidden = !status.message;
    this.#view.schedule();
  }

  #showButtons() {
    const isRunning = this.run !== null && this.run.state !== "over";
    const run = this.#get("run");
    const stop = this.#get("stop");
    const hadFocus = [run, stop].includes(this.shadowRoot?.activeElement);
    run.hidden = !this.#canRun;
    stop.disabled = !isRunning || this.#stopping === "asking" || this.#stopping === "answered";
    run.disabled = isRunning && !(this.#stopping && this.run?.token); // without its name, it could not be ended
    if (hadFocus) (run.disabled ? stop : run).focus(); // a disabled button would lose the focus
    const share = this.#get("share");
    share.hidden = !isRunning || this.getAttribute("memory") !== "hash" || !this.run?.token;
    share.href = location.hash;
    this.#view.schedule(); // the words of an empty pane name the Run button
  }

  /** Whether there is a Run button. */
  get #canRun() {
    return this.hasAttribute("src") && this.getAttribute("controls") !== "stop";
  }

  #tick() {
    window.clearInterval(this.#clock);
    const show = () => { this.#get("elapsed").textContent = duration(this.#started ? performance.now() - this.#started : 0); };
    show();
    if (this.run && this.run.state !== "over") this.#clock = window.setInterval(show, TICK);
  }

  /** Once in each frame that the view draws. */
  #drawn() {
    const store = this.#store;
    const get = this.#get;
    const figures = { lines: store.lines, missing: store.missing, events: this.counts.events, reconnects: this.counts.reconnects };
    for (const [name, count] of Object.entries(figures)) {
      get(name).textContent = grouped(count);
      if (name !== "lines") get(name).parentElement.hidden = count === 0 || (name === "events" && !this.hasAttribute("detailed"));
    }
    get("output").style.setProperty("--digits", String(Math.max(3, String(store.lines + store.missing).length)));
    get("earlier").hidden = store.discarded === 0;
    get("earlier").textContent = `${counted(store.discarded, "earlier line")} not kept`;
    get("empty").hidden = store.end > 0;
    get("empty").textContent = this.#emptyWords();
    const below = this.#view.below;
    get("end").hidden = this.#view.following || below <= 0;
    get("end-words").textContent = below > 0 ? `Jump to end (${grouped(below)} more)` : "Jump to end";
    for (const name of ["copy", "download"]) get(name).disabled = store.end === 0;
    this.#search.resume();
  }

  #emptyWords() {
    if (this.state === "idle") return this.#canRun ? "Press Run to start." : "No output yet.";
    return this.state === "over" ? "No output." : "Waiting for the first line.";
  }

  // ---- Tools

  #listen() {
    const get = this.#get;
    get("run").addEventListener("click", () => this.start());
    get("stop").addEventListener("click", () => this.stop());
    // A key held down must not start and stop runs in turn.
    get("run").parentElement.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.repeat && (event.key === "Enter" || event.key === " ")) event.preventDefault();
    });
    get("wrap").addEventListener("click", () => this.toggleAttribute("wrap"));
    get("times").addEventListener("click", () => this.toggleAttribute("timestamps"));
    get("copy").addEventListener("click", () => this.#copy());
    get("download").addEventListener("click", () => download(this.#store, `run-${this.run?.token ?? "output"}.txt`));
    get("end").addEventListener("click", () => {
      this.#view.follow(true);
      get("output").focus();
    });
  }

  async #copy() {
    const button = this.#get("copy");
    let words = "Copied";
    try {
      await copy(this.text);
    } catch {
      words = "The browser did not allow to copy";
    }
    this.#get("announcer").textContent = words;
    button.title = words;
    button.classList.add("done");
    setTimeout(() => {
      button.title = "Copy all lines";
      button.classList.remove("done");
    }, SAID);
  }

  /** @param {"wrap" | "times"} name @param {boolean} isOn */
  #toggle(name, isOn) {
    this.#get(name).setAttribute("aria-pressed", String(isOn));
    this.#get("output").classList.toggle(name === "wrap" ? "wraps" : "times", isOn);
    if (name === "wrap") this.#view.wrap(isOn);
    else this.#view.repaint();
  }
}

if (!customElements.get("sse-console")) customElements.define("sse-console", SSEConsole);
