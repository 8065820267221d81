/**
 * What a connection brings, and whether it still lives.
 *
 * @module
 */

import { gapOf, isOwn, messageOf } from "./messages.js";
import { EventParser } from "./parser.js";

/** @typedef {import("./messages.js").Message} Message */

/** Collects the messages of a connection. */
export class Inbox {
  #messages = /** @type {Message[]} */ ([]);
  #ids = /** @type {string[]} */ ([]);
  /** Whether the run was heard of: a message, or a heartbeat. A busy server sends no more than `retry:`. */
  isAlive = false;

  /**
   * @param {string} place
   * @param {boolean | null} isVerbatim Whether the run's stream is passed on as it is; `null` before the first message.
   * @param {string | null} token The run's, if it is known.
   */
  constructor(place, isVerbatim, token) {
    this.parser = new EventParser(this, place);
    this.isVerbatim = isVerbatim;
    this.token = token;
  }

  /** @param {string} type @param {string} data @param {string} id */
  event(type, data, id) {
    this.isAlive = true;
    const message = messageOf(type, data);
    this.isVerbatim ??= !isOwn(message, id, this.token);
    this.#messages.push(message);
    this.#ids.push(id);
  }

  /** @param {string} text */
  comment(text) {
    this.isAlive = true;
    const gap = gapOf(text);
    if (!gap) return;
    this.#messages.push(gap);
    this.#ids.push(this.parser.lastEventId);
  }

  take() {
    if (this.#messages.length === 0) return null;
    const batch = { messages: this.#messages, ids: this.#ids };
    this.#messages = [];
    this.#ids = [];
    return batch;
  }
}

/** Notices a connection that died without a word, as when a computer was moved to another network. */
export class Silence {
  #timer = /** @type {any} */ (null);

  /** @param {number} milliseconds @param {() => void} callback */
  constructor(milliseconds, callback) {
    this.milliseconds = milliseconds;
    this.callback = callback;
  }

  restart() {
    if (Number.isFinite(this.milliseconds)) this.#timer = setTimeout(this.callback, this.milliseconds);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}
