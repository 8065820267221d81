/**
 * Finds text in all lines, without holding the page up: it works in turns, and goes on with lines that come.
 *
 * @module
 */

import { plain } from "./terminal.js";
import { Turns } from "./waiting.js";

/** @typedef {import("./store.js").LineStore} LineStore */

/** Where a query is found: lines, in their order. */
export class Finder {
  query = "";
  /** Indexes of rows. @type {number[]} */
  found = [];
  /** The one that is shown, as an index of `found`; -1 before there is one. */
  current = -1;

  #next = 0; // the first row to look at
  #job = /** @type {object | null} */ (null);

  /**
   * @param {LineStore} store
   * @param {() => void} onchange Called as lines are found.
   */
  constructor(store, onchange) {
    this.store = store;
    this.onchange = onchange;
  }

  /** Matches in a text, in upper or lower case; `null` without a query. @type {RegExp | null} */
  pattern = null;

  /** @param {string} query */
  search(query) {
    this.query = query;
    this.pattern = query ? new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu") : null;
    this.found = [];
    this.current = -1;
    this.#next = this.store.first;
    this.#job = null;
    this.onchange();
    this.resume();
  }

  /** Looks at the lines that came since. A line that is unfinished is looked at once it is whole, or another follows. */
  async resume() {
    if (!this.pattern || this.#job) return;
    const job = (this.#job = {});
    const turns = new Turns();
    while (this.#next < this.store.end && this.#job === job) {
      this.#block();
      await turns.pass();
    }
    if (this.#job === job) {
      this.#job = null;
      this.onchange();
    }
  }

  /** Whether all lines were looked at. */
  get isDone() {
    return this.#job === null;
  }

  /** Looks through the rest of a block. */
  #block() {
    const { store } = this;
    if (this.#next < store.first) this.#forget();
    const block = store.blocks.find(({ start, count }) => this.#next < start + count);
    if (!block) return;
    const pattern = /** @type {RegExp} */ (this.pattern);
    const end = block.start + block.count;
    pattern.lastIndex = 0;
    if (block.hasControls || pattern.test(block.joined())) {
      for (let index = this.#next; index < end; index += 1) {
        pattern.lastIndex = 0;
        if (pattern.test(plain(block.textAt(index - block.start)))) this.found.push(index);
      }
    }
    this.#next = end;
    this.onchange();
  }

  /** Rows that are no longer kept are found no longer. */
  #forget() {
    const gone = this.found.findIndex((index) => index >= this.store.first);
    const count = gone === -1 ? this.found.length : gone;
    this.found.splice(0, count);
    this.current = Math.max(-1, this.current - count);
    this.#next = Math.max(this.#next, this.store.first);
  }

  /**
   * Goes to the next or the previous line, around the ends.
   *
   * @param {1 | -1} step
   * @param {number} from The row that is in sight, for the first step.
   * @returns {number | null} A row.
   */
  step(step, from) {
    if (this.found.length && this.found[0] < this.store.first) this.#forget();
    const count = this.found.length;
    if (count === 0) return null;
    if (this.current === -1) {
      const next = this.found.findIndex((index) => index >= from);
      this.current = step === 1 ? (next === -1 ? 0 : next) : (next === -1 ? count : next) - 1;
      this.current = (this.current + count) % count;
    } else {
      this.current = (this.current + step + count) % count;
    }
    return this.found[this.current];
  }
}
