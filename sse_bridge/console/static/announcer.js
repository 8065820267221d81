/**
 * Reads new lines to screen readers, a few at a time: a log of thousands of lines a second would never fall silent.
 *
 * @module
 */

import { plain } from "./terminal.js";
import { counted } from "./texts.js";

/** Milliseconds between two announcements. */
const PAUSE = 3_000;
/** Lines that are read out; of more, only the number and the last one. */
const READ = 3;

export class Announcer {
  #lines = /** @type {string[]} */ ([]);
  #count = 0;
  #timer = 0;

  /** @param {HTMLElement} region With `aria-live`. */
  constructor(region) {
    this.region = region;
  }

  /** @param {string} line */
  line(line) {
    this.#count += 1;
    this.#lines.push(line);
    if (this.#lines.length > READ) this.#lines.shift();
    this.#timer ||= window.setTimeout(() => this.#say(), PAUSE);
  }

  /** Lets what waits go, as when another run is shown. */
  clear() {
    window.clearTimeout(this.#timer);
    this.#timer = this.#count = 0;
    this.#lines = [];
    this.region.replaceChildren();
  }

  #say() {
    const lines = this.#lines.map((line) => plain(line).slice(0, 300));
    const words = this.#count <= READ ? lines.join("\n") : `${counted(this.#count, "new line")}. ${lines.at(-1)}`;
    this.clear();
    this.region.textContent = words;
  }
}
