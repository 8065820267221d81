/**
 * The search of `<sse-console>`: its bar, its keys, and the way from one match to the next.
 *
 * @module
 */

import { Finder } from "./finder.js";
import { counted, grouped } from "./texts.js";

/** @typedef {import("./store.js").LineStore} LineStore */
/** @typedef {import("./view.js").View} View */

export class Search {
  #get;
  #view;
  #finder;

  /**
   * @param {ShadowRoot} root
   * @param {(id: string) => any} get
   * @param {View} view
   */
  constructor(root, get, view) {
    this.#get = get;
    this.#view = view;
    this.#finder = new Finder(view.store, () => this.#found());
    get("find").addEventListener("click", () => this.#open(get("search").hidden));
    get("close").addEventListener("click", () => this.#open(false));
    get("query").addEventListener("input", () => this.#finder.search(get("query").value));
    get("search").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
    get("next").addEventListener("click", () => this.#step(1));
    get("previous").addEventListener("click", () => this.#step(-1));
    root.addEventListener("keydown", (event) => this.#key(/** @type {KeyboardEvent} */ (event)));
  }

  /** Searches other lines for the same. @param {LineStore} store */
  begin(store) {
    this.#finder.store = store;
    this.#finder.search(this.#finder.query);
  }

  /** Looks at lines that came since. */
  resume() {
    if (this.#finder.pattern && this.#finder.isDone) this.#finder.resume();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const inQuery = event.target === this.#get("query");
    const isFind = event.key.toLowerCase() === "f" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    // The browser's own search knows the rows in sight only. A second press leads to it.
    if (isFind && !inQuery) this.#open(true);
    else if (event.key === "/" && event.target === this.#get("output")) this.#open(true);
    else if (event.key === "Escape" && !this.#get("search").hidden) this.#open(false);
    else if (event.key === "Enter" && inQuery) this.#step(event.shiftKey ? -1 : 1);
    else return;
    event.preventDefault();
  }

  /** @param {boolean} isOpen */
  #open(isOpen) {
    const get = this.#get;
    get("search").hidden = !isOpen;
    get("find").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) {
      get("query").focus();
      get("query").select();
    } else {
      get("output").focus();
      this.#view.current = -1;
    }
    this.#finder.search(isOpen ? get("query").value : "");
  }

  /** @param {1 | -1} step */
  #step(step) {
    const index = this.#finder.step(step, this.#view.top);
    if (index !== null) this.#view.show(index);
    this.#found();
  }

  /** Lines were found. */
  #found() {
    const { found, current, query, pattern, isDone } = this.#finder;
    if (this.#view.pattern !== pattern) {
      this.#view.pattern = pattern;
      this.#view.repaint();
    }
    const count = counted(found.length, "line") + (isDone ? "" : "…");
    const words = current === -1 ? count : `${grouped(current + 1)} of ${count}`;
    this.#get("count").textContent = query ? (found.length || !isDone ? words : "No match") : "";
    for (const name of ["next", "previous"]) this.#get(name).disabled = found.length === 0;
  }
}
