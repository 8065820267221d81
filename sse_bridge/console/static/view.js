/**
 * Shows the rows that are in sight, however many there are.
 *
 * The rows in sight hang on an anchor: one row, and the place of its top. A scroll bar has a length of its own, since no
 * browser lets an element grow to a million wrapped rows: at a fraction `p` of its way, the row at `p` of all rows stands
 * at `p` of the pane. Where all rows are equally high, that is how any element scrolls.
 *
 * @module
 */

import { paint, rowElement } from "./paint.js";

/** @typedef {import("./store.js").LineStore} LineStore */

/** Pixels: Firefox lets elements grow to 17.9 million, Chromium to 33.5 million. */
const LONGEST = 15_000_000;
/** Rows beyond the edges of the pane, so that a quick scroll shows text. */
const BEYOND = 8;
/** Milliseconds after the last movement until the scroll bar is measured anew; before, it would run from the finger. */
const REST = 150;

export class View {
  /** Whether the pane stays at the end. */
  following = true;
  /** What to mark in the rows. @type {RegExp | null} */
  pattern = null;
  wraps = false;
  /** The row that a search stands at. */
  current = -1;

  #nodes = /** @type {HTMLElement[]} */ ([]); // of the rows from `#from` on
  #from = 0;
  #drawn = { from: 0, tops: [0], shift: 0 }; // what the reader sees, also while the nodes wait for the next frame
  #final = new WeakSet(); // nodes of lines that are whole, and painted
  #anchor = { index: 0, y: 0 };
  #row = 20; // pixels of a row that is one line high
  #average = 0; // pixels of a row
  #set = 0; // where the scroll bar was put last
  #moved = 0; // when the reader moved it
  #wide = 0;
  #frame = 0;

  /**
   * @param {LineStore} store
   * @param {{ scroller: HTMLElement, space: HTMLElement, rows: HTMLElement }} elements
   * @param {() => void} onchange Called when it begins or stops to follow the end, and once in each frame that it draws.
   */
  constructor(store, { scroller, space, rows }, onchange) {
    this.store = store;
    this.scroller = scroller;
    this.space = space;
    this.rows = rows;
    this.window = /** @type {HTMLElement} */ (rows.parentElement); // stays in sight, and cuts off what is beyond
    this.onchange = onchange;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // A smooth scroll begins with less than a pixel, so the wish to go up is taken from the event that starts it.
    scroller.addEventListener("wheel", (event) => { if (event.deltaY < 0) this.#wishUp(); }, { passive: true });
    scroller.addEventListener("keydown", (event) => {
      if (["ArrowUp", "PageUp", "Home"].includes(event.key)) this.#wishUp();
    });
    this.observer = new ResizeObserver(() => this.schedule());
    this.observer.observe(scroller);
  }

  /** Shows another store's rows. @param {LineStore} store */
  reset(store) {
    this.store = store;
    this.#clear();
    this.#average = this.#wide = 0;
    this.#set = this.scroller.scrollTop; // where the reader stood in other lines says nothing of these
    this.space.style.minWidth = "";
    this.current = -1;
    this.follow(true);
  }

  /** Draws all rows anew, as after a search. */
  repaint() {
    this.#clear();
    this.schedule();
  }

  /** @param {boolean} wraps */
  wrap(wraps) {
    this.wraps = wraps;
    this.#average = this.#wide = 0;
    this.space.style.minWidth = "";
    this.repaint();
  }

  /** @param {boolean} wanted */
  follow(wanted) {
    this.following = wanted;
    this.schedule();
  }

  /** @param {number} index */
  show(index) {
    this.current = index;
    this.#anchor = { index, y: this.scroller.clientHeight / 3 };
    this.following = false;
    this.#moved = 0;
    this.repaint();
  }

  /** The first row in sight. */
  get top() {
    return this.#at(0);
  }

  /** How many rows are below the pane. */
  get below() {
    return this.store.end - Math.min(this.store.end, this.#at(this.scroller.clientHeight) + 1);
  }

  schedule() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #clear() {
    this.rows.replaceChildren();
    this.#nodes = [];
    this.#from = this.store.first;
  }

  #wishUp() {
    if (this.following && this.scroller.scrollTop > 0) this.follow(false);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    if (Math.abs(scrollTop - this.#set) < 1) return;
    const longest = scrollHeight - clientHeight;
    this.#set = scrollTop;
    this.#moved = performance.now();
    this.following = longest - scrollTop <= 2;
    const place = (longest > 0 ? scrollTop / longest : 0) * (this.store.end - this.store.first);
    const index = Math.min(Math.floor(place), this.store.end - this.store.first - 1);
    const y = (longest > 0 ? scrollTop / longest : 0) * clientHeight - (place - index) * this.#heightOf(this.store.first + index);
    this.#anchor = { index: this.store.first + index, y };
    this.schedule();
  }

  /** @param {number} index */
  #heightOf(index) {
    if (!this.wraps) return this.#row;
    return this.#nodes[index - this.#from]?.offsetHeight ?? (this.#average || this.#row);
  }

  // ---- Drawing, once in a frame

  #draw() {
    this.#scrolled(); // whose event may still be to come
    this.#frame = 0;
    const { store, scroller } = this;
    const height = scroller.clientHeight;
    const count = store.end - store.first;
    this.window.style.height = `${height}px`;
    this.#row = parseFloat(getComputedStyle(this.rows).lineHeight) || this.#row;
    if (this.following) this.#anchor = { index: store.end, y: height };
    else if (this.#anchor.index < store.first) this.#anchor = { index: store.first, y: 0 };
    const { index, y } = this.#anchor;
    // At either end, `#hang` moves the rows so that no room is empty: a whole pane of them has to be there.
    const fitting = (/** @type {number} */ pixels) => Math.ceil(Math.max(0, pixels) / this.#row);
    const from = Math.min(index - fitting(y), store.end - fitting(height)) - BEYOND;
    const to = Math.max(index + fitting(height - y), store.first + fitting(height)) + BEYOND;
    this.#place(Math.max(store.first, from), Math.min(store.end, to));
    const tops = this.#tops();
    this.#measure(tops, count);
    this.#hang(tops, height);
    this.onchange();
  }

  /** Makes the pane hold the rows from `from` to `to`; what it already holds is left alone, and with it a selection.
   * @param {number} from @param {number} to */
  #place(from, to) {
    while (this.#nodes.length && this.#from < from) {
      /** @type {HTMLElement} */ (this.#nodes.shift()).remove();
      this.#from += 1;
    }
    while (this.#from + this.#nodes.length > to && this.#nodes.length) /** @type {HTMLElement} */ (this.#nodes.pop()).remove();
    for (const [offset, node] of this.#nodes.entries()) this.#paint(node, this.#from + offset);
    const before = this.#made(from, Math.min(this.#from, to));
    if (this.#nodes.length === 0) this.#from = from + before.length;
    const after = this.#made(this.#from + this.#nodes.length, to);
    this.rows.prepend(...before);
    this.rows.append(...after);
    this.#nodes = [...before, ...this.#nodes, ...after];
    this.#from -= before.length;
  }

  /** @param {number} from @param {number} to */
  #made(from, to) {
    const nodes = [];
    for (let index = from; index < to; index += 1) {
      const node = rowElement(this.store.row(index));
      this.#paint(node, index);
      nodes.push(node);
    }
    return nodes;
  }

  /** @param {HTMLElement} node @param {number} index */
  #paint(node, index) {
    if (this.#final.has(node)) return;
    const row = this.store.row(index);
    if (!row.isOpen) this.#final.add(node);
    paint(node, row, this.pattern);
    node.classList.toggle("current", index === this.current);
  }

  /** Where each row begins, in pixels from the first in the pane. The last number is the end of all. */
  #tops() {
    const tops = [];
    if (!this.wraps) {
      for (let offset = 0; offset <= this.#nodes.length; offset += 1) tops.push(offset * this.#row);
      return tops;
    }
    for (const node of this.#nodes) tops.push(node.offsetTop);
    const last = this.#nodes.at(-1);
    tops.push(last ? last.offsetTop + last.offsetHeight : 0);
    return tops;
  }

  /** Gives the scroll bar its length. @param {number[]} tops @param {number} count */
  #measure(tops, count) {
    const average = this.#nodes.length ? /** @type {number} */ (tops.at(-1)) / this.#nodes.length : this.#row;
    const isAll = this.#nodes.length === count;
    const isAtRest = this.following || performance.now() - this.#moved > REST;
    const isOff = Math.abs(average / this.#average - 1) > 0.2;
    if (isAll || !this.#average || (isAtRest && isOff)) this.#average = average;
    const length = `${Math.min(LONGEST, Math.round(count * this.#average))}px`;
    this.space.style.height = length;
    if (this.wraps) return;
    const wide = this.rows.scrollWidth;
    if (wide > this.#wide) {
      this.#wide = wide;
      this.space.style.minWidth = `${wide}px`;
    }
  }

  /** Moves the rows so that the anchor stands at its place, and the scroll bar with them. @param {number[]} tops @param {number} height */
  #hang(tops, height) {
    const { store, scroller } = this;
    const { index, y } = this.#anchor;
    const end = /** @type {number} */ (tops.at(-1));
    let shift = y - tops[Math.max(0, Math.min(tops.length - 1, index - this.#from))];
    if (this.#from + this.#nodes.length === store.end) shift = Math.max(shift, height - end);
    if (this.#from === store.first) shift = Math.min(shift, 0);
    this.rows.style.transform = `translateY(${Math.round(shift)}px)`;
    this.#drawn = { from: this.#from, tops, shift };
    const longest = scroller.scrollHeight - height;
    const wanted = this.following ? longest : this.#fraction(tops, shift, height) * longest;
    if (Math.abs(wanted - scroller.scrollTop) < 1) return;
    scroller.scrollTop = wanted;
    this.#set = scroller.scrollTop;
  }

  /** The fraction of all rows whose place in the pane is the same fraction of it. @param {number[]} tops @param {number} shift @param {number} height */
  #fraction(tops, shift, height) {
    const count = this.store.end - this.store.first;
    const each = height / count;
    for (let offset = 0; offset < tops.length - 1; offset += 1) {
      const before = this.#from - this.store.first + offset;
      const top = tops[offset] + shift;
      const part = (before * each - top) / (tops[offset + 1] - tops[offset] - each);
      if (part >= -0.001 && part < 1) return Math.max(0, before + part) / count;
    }
    return this.#from === this.store.first ? 0 : 1;
  }

  /** The row at a height of the pane. @param {number} y */
  #at(y) {
    const { from, tops, shift } = this.#drawn;
    const offset = tops.findIndex((top) => top + shift > y);
    return from + Math.max(0, (offset === -1 ? tops.length : offset) - 1);
  }
}
