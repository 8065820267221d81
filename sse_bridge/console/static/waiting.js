/**
 * Waiting: between attempts, for the browser's other work, and for a page that the browser has put aside.
 *
 * @module
 */

/** Milliseconds between attempts at most. */
const LONGEST = 15_000;
/** Milliseconds of work after which the browser gets its turn: half a frame, so that scrolling stays smooth. */
const TURN = 8;

const channel = new MessageChannel();
const port = /** @type {MessagePort & { ref?(): void, unref?(): void }} */ (channel.port1);
const turns = /** @type {(() => void)[]} */ ([]);
port.onmessage = () => turns.shift()?.();
port.unref?.(); // in Node, a port would keep the process running

/** The next turn of the event loop. Unlike a timer it is never put off in a hidden tab. */
function nextTurn() {
  return new Promise((resolve) => {
    turns.push(() => resolve(undefined));
    port.ref?.();
    channel.port2.postMessage(null);
  }).then(() => { if (turns.length === 0) port.unref?.(); });
}

/** Gives the browser its turn in between, so that a burst of events becomes no long task. */
export class Turns {
  #since = performance.now();

  /** Whether it is the browser's turn. */
  get isOver() { return performance.now() - this.#since >= TURN; }

  /** Await it between pieces of work: it takes time only once enough of it was used. */
  async pass() {
    if (!this.isOver) return;
    await nextTurn();
    this.#since = performance.now();
  }
}

/** A promise, and what resolves it. */
export function deferred() {
  let resolve = /** @type {(value?: any) => void} */ (() => {});
  const promise = new Promise((done) => { resolve = done; });
  return { promise, resolve };
}

/**
 * Milliseconds to wait before an attempt: twice as long each time, and spread so that the viewers of a server that was
 * restarted do not come back together.
 *
 * @param {number} base The server's `retry:`.
 * @param {number} failures In a row, before this attempt.
 */
export function backoff(base, failures) {
  return Math.max(Math.min(LONGEST, base * 2 ** failures) * (0.5 + Math.random() / 2), Math.min(base, 100));
}

/**
 * Milliseconds that `Retry-After` asks for, in either of its forms.
 *
 * @param {string | null} header
 * @returns {number | null}
 */
export function retryAfter(header) {
  if (header === null) return null;
  if (/^\d+$/.test(header.trim())) return 1000 * Number(header);
  const date = Date.parse(header);
  return Number.isNaN(date) ? null : Math.max(0, date - Date.now());
}

/**
 * Waits. It is over early if the network or the page comes back.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal Ends it, too.
 */
export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = new AbortController();
    const timer = setTimeout(finish, milliseconds);
    function finish() {
      clearTimeout(timer);
      done.abort();
      resolve(undefined);
    }
    if (signal.aborted) finish();
    else signal.addEventListener("abort", finish, { signal: done.signal });
    for (const name of ["online", "pageshow"]) globalThis.addEventListener?.(name, finish, { signal: done.signal });
  });
}
