/**
 * What the attempts to reach a run have brought so far, and how long that has gone on.
 *
 * @module
 */

import { backoff } from "./waiting.js";

/** Milliseconds in which a `POST` without an answer is repeated. The bridge knows a key for `keep` (60 s) after the end of its run. */
const START_PATIENCE = 30_000;

/** An `Idempotency-Key`. Without a secure context there is no `randomUUID`. */
export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

/** A moment, and the time since. Both clocks are read: one may stand still while the computer sleeps, the other may be set. */
class Moment {
  #clock = performance.now();
  #date = Date.now();

  get passed() {
    return Math.max(performance.now() - this.#clock, Date.now() - this.#date);
  }
}

/** Failures in a row, and a start that may have happened. */
export class Attempts {
  #failures = 0;
  #failingSince = 0;
  #asked = new Moment();
  #unsure = /** @type {Moment | null} */ (null); // when the first start was sent whose answer was lost

  /** A start is about to be sent. */
  starts() {
    this.#asked = new Moment();
  }

  /** Its answer was lost. */
  lost() {
    this.#unsure ??= this.#asked;
  }

  /** Whether a start was sent that may have happened. */
  get isUnsure() {
    return this.#unsure !== null;
  }

  /** Milliseconds in which the bridge surely knows the key of a start that may have happened. Without one, there is no limit. */
  get left() {
    return this.#unsure ? Math.max(0, START_PATIENCE - this.#unsure.passed) : Infinity;
  }

  /** The run was heard of. */
  succeeded() {
    this.#failures = 0;
  }

  /** Milliseconds to wait before the next attempt. @param {number} retry The server's `retry:`. */
  failed(retry) {
    if (this.#failures === 0) this.#failingSince = performance.now();
    this.#failures += 1;
    return backoff(retry, this.#failures - 1);
  }

  /** Whether they have failed for longer than that. @param {number} patience Milliseconds. */
  haveFailedFor(patience) {
    return this.#failures > 0 && performance.now() - this.#failingSince > patience;
  }
}
