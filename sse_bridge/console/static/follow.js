/**
 * Starts a run, or comes to one that goes on, and follows it to its end through lost connections.
 *
 * A command is never started twice: once the run has a name, only that run is asked for. A `POST` carries a key, so that
 * it can be repeated if its answer was lost; a `GET` whose answer was lost is given up.
 *
 * @module
 */

import { StopFailed, answerOf, failure, startUnknown, unheard, unreachable } from "./answers.js";
import { Attempts, randomKey } from "./attempts.js";
import { Inbox, Silence } from "./connection.js";
import { isTerminal, placeOf } from "./messages.js";
import { Turns, deferred, sleep } from "./waiting.js";

/** @typedef {import("./messages.js").Message} Message */
/** @typedef {import("./memory.js").Memory} Memory */
/** @typedef {"starting" | "waiting" | "running" | "reconnecting" | "over"} State */

/**
 * @typedef {object} Options
 * @property {"POST" | "GET"} [method] Starts the run. `POST`, the default, is answered 201 with the run's address.
 * @property {BodyInit | object} [body] Of a `POST`. A plain object is sent as JSON.
 * @property {HeadersInit} [headers] Of each request.
 * @property {RequestCredentials} [credentials] As for `fetch`.
 * @property {string} [key] The `Idempotency-Key`: requests with the same one share a run. Random by default.
 * @property {string | null} [run] The token of a run to follow; then none is started.
 * @property {Memory | null} [memory] Where the token is kept: `inHash()`, `inSession()`. The run that it names is followed.
 * @property {AbortSignal} [signal] Closes the connection. The run goes on, for the grace period without a viewer.
 * @property {number} [patience] Milliseconds of lost connections in a row, or of a busy server, until the run is given up.
 * @property {number} [silence] Milliseconds without a byte until a connection is taken for lost: three heartbeats.
 */

/** Milliseconds until a reconnection, if the server names none: the bridge's own default. */
const RETRY = 2_000;
/** Milliseconds for an answer to `DELETE`, which takes three seconds by itself at most. */
const STOP_PATIENCE = 10_000;

/**
 * Starts a run and follows it.
 *
 *     for await (const message of follow("/run-sse/")) {
 *       if (message.type === "stdout") show(message.line);
 *     }
 *
 * @param {string | URL} url The bridge, such as `/run-sse/`. Its query goes with each request.
 * @param {Options} [options]
 */
export function follow(url, options = {}) {
  return new Run(url, options);
}

/**
 * One run, as this page sees it: an async iterable of its messages, which can be read once, and an `EventTarget` that
 * fires `statechange` when `state`, `isBusy` or `status` changes, and when the run gets its name. The iteration ends after
 * `exit` or `error`, or without either where the bridge has no more to say. Leaving the loop closes the connection.
 */
export class Run extends EventTarget {
  /** @type {State} */
  state = "starting";
  /** The run's name, once it is known; what a link needs. @type {string | null} */
  token = null;
  /** The run's address, once it is known. @type {string | null} */
  href = null;
  /** The id of the last message that the loop was given. */
  lastEventId = "";
  /** The `exit` or `error` that ended the run. @type {Message | null} */
  outcome = null;
  /** While it waits: whether the server has said that it is busy. */
  isBusy = false;
  /** While it waits: the HTTP status of the last answer; `null` if there was none. @type {number | null} */
  status = null;
  /** How often the connection was lost and found again. */
  reconnects = 0;

  #url;
  #options;
  #place = ""; // the id of the last message received
  #isVerbatim = /** @type {boolean | null} */ (null);
  #hasUnnamed = false; // whether a message came without an id, or from a run without a name: nothing goes on behind it
  #retry = RETRY;
  #closed = new AbortController();
  #connection = new AbortController();
  #asleep = /** @type {Promise<void> | null} */ (null); // while the browser has put the page aside
  #named = deferred(); // resolved once the run has a name, or none will come
  #attempts = new Attempts();
  #isResting = false; // between two attempts: no request is on its way
  #isStopping = false;

  /**
   * @param {string | URL} url
   * @param {Options} options
   */
  constructor(url, options) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI);
    this.#options = { method: "POST", key: randomKey(), patience: 300_000, silence: 45_000, ...options };
    const known = options.run ?? options.memory?.get() ?? null;
    if (known !== null) this.#name(known, null);
    options.signal?.addEventListener("abort", () => this.close(), { signal: this.#closed.signal });
    if (options.signal?.aborted) this.close();
    globalThis.addEventListener?.("pagehide", () => this.#putAside(), { signal: this.#closed.signal });
  }

  // ---- Reading

  async *[Symbol.asyncIterator]() {
    const turns = new Turns(); // the page may take long for each message, and thousands come together
    for await (const { messages, ids } of this.#read()) {
      for (let index = 0; index < messages.length; index += 1) {
        this.lastEventId = ids[index];
        yield messages[index];
        if (turns.isOver) await turns.pass();
      }
    }
  }

  /** The messages in groups, as they arrive: cheaper where there are thousands a second. */
  async *batches() {
    for await (const { messages, ids } of this.#read()) {
      this.lastEventId = /** @type {string} */ (ids.at(-1));
      yield messages;
    }
  }

  async *#read() {
    try {
      while (this.state !== "over") {
        const response = await this.#connect();
        if (response instanceof Response) yield* this.#receive(response);
        else if (response) yield this.#end(response);
      }
    } finally {
      this.close();
    }
  }

  /** @param {Response} response */
  async *#receive(response) {
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const silence = new Silence(/** @type {number} */ (this.#options.silence), () => this.#connection.abort());
    const turns = new Turns();
    const inbox = new Inbox(this.#place, this.#isVerbatim, this.token);
    let isCut = false;
    try {
      while (this.state !== "over") {
        silence.restart();
        const { done, value } = await reader.read();
        silence.stop();
        if (done) break;
        inbox.parser.push(value);
        if (inbox.isAlive) this.#attempts.succeeded();
        this.#retry = inbox.parser.retry ?? this.#retry;
        const batch = inbox.take();
        this.#isVerbatim = inbox.isVerbatim;
        if (batch) this.#note(batch);
        this.#place = inbox.parser.lastEventId; // in `verbatim`, blocks without data count, too
        if (batch) yield batch;
        await turns.pass();
      }
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      isCut = true;
    } finally {
      silence.stop();
      reader.cancel().catch(() => {});
    }
    if (this.state !== "over") yield* this.#lost(isCut);
  }

  /** Notes what a batch says of the run, before the page is given it. @param {{messages: Message[], ids: string[]}} batch */
  #note({ messages, ids }) {
    for (let index = 0; index < messages.length; index += 1) {
      const message = messages[index];
      if (this.token === null) { // a page of another origin may not read the response's headers
        const place = placeOf(ids[index]);
        if (place && place.number !== null) this.#name(place.token, null);
        else if (message.type === "start" && message.run && !this.#isVerbatim) this.#name(message.run, null);
      }
      if ((ids[index] === "" || this.token === null) && message.type !== "gap") this.#hasUnnamed = true;
      if (!isTerminal(message, ids[index], this.#isVerbatim)) continue;
      this.outcome = message;
      messages.length = ids.length = index + 1;
      if (message.code === "run_unknown") this.#options.memory?.set(null);
    }
    this.#become(this.outcome ? "over" : "running");
  }

  /** The connection has ended before the run. @param {boolean} isCut */
  async *#lost(isCut) {
    if (this.#closed.signal.aborted) return this.#become("over");
    if (this.#hasUnnamed) {
      if (isCut) yield this.#end(failure("connection_lost", "The connection was lost. This stream cannot be followed again."));
      else this.#become("over");
      return;
    }
    if (this.token === null && isCut) {
      yield this.#end(failure("unknown", "The connection was lost. Whether a run was started is unknown."));
      return;
    }
    if (this.token !== null) this.reconnects += 1;
    if (this.#asleep) return this.#become("reconnecting");
    if (this.#isHopeless()) yield this.#end(this.#givenUp(unheard(this.token !== null)));
    else if (this.token === null) await this.#pause("waiting", { kind: "wait" });
    else await this.#pause("reconnecting", { kind: "lost" });
  }

  /** @param {Message} message */
  #end(message) {
    this.outcome = message;
    this.#become("over");
    return { messages: [message], ids: [this.#place] };
  }

  // ---- Asking

  /** Asks until there is a stream. A message instead says why there is none; nothing, that the run is over. */
  async #connect() {
    while (this.state !== "over") {
      await this.#asleep;
      if (this.#closed.signal.aborted) break;
      const isStart = this.token === null;
      if (isStart && this.#attempts.left === 0) return startUnknown(this.status);
      if (isStart) this.#attempts.starts();
      this.#connection = new AbortController();
      const silence = new Silence(isStart ? Infinity : Number(this.#options.silence), () => this.#connection.abort());
      silence.restart();
      let answer;
      let response;
      try {
        response = await this.#ask();
        answer = await answerOf(response);
      } catch {
        if (isStart) this.#attempts.lost();
        if (this.#closed.signal.aborted) break;
        answer = /** @type {import("./answers.js").Answer} */ ({ kind: "lost" });
      } finally {
        silence.stop();
      }
      if (answer.token) this.#name(answer.token, answer.href ? new URL(answer.href, response?.url) : null, response);
      if (answer.kind === "stream") {
        if (this.token !== null) this.#become("running");
        return response;
      }
      if (answer.kind === "accepted") continue;
      if (answer.kind === "over") break;
      if (answer.kind === "refused") return this.#refused(answer.message);
      if (answer.kind === "lost" && isStart) {
        this.#attempts.lost();
        if (!this.#mayRepeat()) return startUnknown(answer.status);
      }
      if (this.#asleep) continue;
      if (this.#isHopeless()) return this.#givenUp(unreachable(answer.status));
      await this.#pause(isStart ? "waiting" : "reconnecting", answer);
    }
    this.#become("over");
    return null;
  }

  /** @param {Message} message */
  #refused(message) {
    if (message.status === 404 && this.token !== null) this.#options.memory?.set(null);
    return message;
  }

  #ask() {
    const { method, body, headers, credentials, key } = this.#options;
    const sent = new Headers(headers);
    const request = { method: "GET", headers: sent, credentials, cache: /** @type {const} */ ("no-store"), signal: this.#connection.signal };
    if (this.href !== null) {
      sent.set("Accept", "text/event-stream");
      if (this.#place) sent.set("Last-Event-ID", this.#place);
      return fetch(this.href, request);
    }
    if (method === "GET") {
      sent.set("Accept", "text/event-stream");
      return fetch(this.#url, request);
    }
    sent.set("Accept", "application/json");
    sent.set("Prefer", "respond-async");
    if (key) sent.set("Idempotency-Key", key);
    const isPlain = body !== null && typeof body === "object" && Object.getPrototypeOf(body) === Object.prototype;
    if (isPlain) sent.set("Content-Type", "application/json");
    return fetch(this.#url, { ...request, method, body: /** @type {BodyInit} */ (isPlain ? JSON.stringify(body) : body) });
  }

  /** Whether a start that may have happened can be asked for again: only with a key that the bridge still knows. */
  #mayRepeat() {
    const { method, key } = this.#options;
    return method === "POST" && Boolean(key) && this.#attempts.left > 0;
  }

  #isHopeless() {
    return this.#attempts.haveFailedFor(/** @type {number} */ (this.#options.patience));
  }

  /** The end of a run that was asked for long enough. @param {Message} message For one that is known, or surely not started. */
  #givenUp(message) {
    return this.token === null && this.#attempts.isUnsure ? startUnknown(this.status) : message;
  }

  /**
   * Waits before the next attempt.
   *
   * @param {State} state
   * @param {{ kind: string, status?: number | null, after?: number | null }} answer What the last attempt brought.
   */
  async #pause(state, { kind, status = null, after = null }) {
    if (this.#isStopping && this.#hasSurelyNotStarted) return this.close();
    const wait = this.#attempts.failed(this.#retry);
    this.#isResting = true;
    this.#become(state, kind === "wait", status);
    const asked = after === null ? wait : after * (1 + Math.random() / 4);
    await sleep(this.token === null ? Math.min(asked, this.#attempts.left) : asked, this.#closed.signal);
    this.#isResting = false;
  }

  /** Whether each start so far was answered, by a busy server. Not asked while one is on its way. */
  get #hasSurelyNotStarted() {
    return this.token === null && !this.#attempts.isUnsure;
  }

  // ---- The run's name, and its state

  /**
   * @param {string} token
   * @param {URL | null} address
   * @param {Response} [response] Its URL is the bridge's, after redirects.
   */
  #name(token, address, response) {
    if (this.token === token && this.href !== null) return;
    if (response && !this.token) this.#url = Object.assign(new URL(response.url || this.#url), { search: this.#url.search });
    const run = address ?? new URL(this.#url);
    if (!address) run.pathname = `${run.pathname.replace(/\/$/, "")}/${encodeURIComponent(token)}`;
    run.search = this.#url.search;
    run.hash = "";
    this.token = token;
    this.href = run.href;
    this.#options.memory?.set(token);
    this.#named.resolve();
    this.dispatchEvent(new Event("statechange"));
  }

  /** @param {State} state @param {boolean} [isBusy] @param {number | null} [status] */
  #become(state, isBusy = false, status = null) {
    if (this.state === state && this.isBusy === isBusy && this.status === status) return;
    Object.assign(this, { state, isBusy, status });
    if (state === "over") this.#named.resolve();
    this.dispatchEvent(new Event("statechange"));
  }

  // ---- Ending

  /** Closes the connection. The run goes on: other pages may watch it. */
  close() {
    this.#closed.abort();
    this.#connection.abort();
    this.#become("over");
  }

  /**
   * Ends the run and its command. The loop goes on to the `error` with the code `cancelled`.
   *
   * @returns {Promise<"ended" | "requested" | "unknown" | "never started">} `requested`: its end was not seen in time.
   *   `unknown`: the server knows no such run; it may have ended some time ago.
   * @throws {Error} The server refused, or did not answer, the start included: whether the command runs is unknown.
   */
  async stop() {
    this.#isStopping = true;
    if (this.#isResting && this.#hasSurelyNotStarted) this.close();
    if (this.token === null) await this.#named.promise;
    if (this.href === null) {
      if (this.outcome?.code === "unknown") throw new Error(this.outcome.message);
      if (this.#attempts.isUnsure) throw new Error("Whether a run was started is unknown.");
      return "never started";
    }
    const response = await fetch(this.href, {
      method: "DELETE",
      headers: this.#options.headers,
      credentials: this.#options.credentials,
      keepalive: true, // it arrives even if the page is left at once
      signal: AbortSignal.timeout(STOP_PATIENCE),
    });
    if (response.status === 202) return "requested";
    if (response.status === 404) return "unknown";
    if (response.status === 204) return "ended"; // 200 may be the page of a login
    throw new StopFailed(response.status);
  }

  /** The page is left, or kept for Back: its connection goes, and the run is asked for again if the page comes back. */
  #putAside() {
    if (this.state === "over" || this.#asleep) return;
    this.#asleep = new Promise((resolve) => {
      const back = () => { this.#asleep = null; resolve(); };
      globalThis.addEventListener("pageshow", back, { once: true });
    });
    this.#connection.abort();
  }
}
