/**
 * The lines of a run, a million of them in little memory: blocks of rows, each with one string for all its text.
 *
 * Rows keep their index for good; the oldest are discarded in whole blocks.
 *
 * @module
 */

import { CONTROL, TerminalLine, styleBehind } from "./terminal.js";

/** @typedef {import("./sgr.js").Style} Style */
/** @typedef {"stdout" | "stderr" | "notice"} Kind */

/**
 * @typedef {object} Row
 * @property {Kind} kind
 * @property {number} number The line's place in the script's output, from 1; 0 for a notice.
 * @property {string} text As the script printed it.
 * @property {Style | null} style In which it begins.
 * @property {number} at Milliseconds since the epoch at which the page got its beginning.
 * @property {boolean} isOpen More of it may come.
 */

const KINDS = /** @type {Kind[]} */ (["stdout", "stderr", "notice"]);
/** Rows of a block: one string of some 100 KB. */
const SIZE = 1_024;
/** Characters that are kept, of lines that are longer than most. */
const MOST_CHARACTERS = 200_000_000;
/** Characters of a line in pieces from which on what was overwritten is let go. */
const LONG = 4_096;

/** Rows next to each other. */
class Block {
  /** @type {string[] | null} The texts, until the block is full and each line whole. */
  texts = [];
  /** Joined by newlines. */
  text = "";
  characters = 0;
  count = 0;
  open = 0;
  /** Whether a text holds more than text. */
  hasControls = false;

  /** @param {number} start The index of its first row. */
  constructor(start) {
    this.start = start;
    this.ends = new Uint32Array(0);
    this.kinds = new Uint8Array(SIZE);
    this.numbers = new Uint32Array(SIZE);
    this.times = new Float64Array(SIZE);
    this.styles = /** @type {Map<number, Style>} */ (new Map());
  }

  /** @param {number} offset */
  textAt(offset) {
    if (this.texts) return this.texts[offset];
    return this.text.slice(offset ? this.ends[offset - 1] + 1 : 0, this.ends[offset]);
  }

  /** All texts, joined by newlines. */
  joined() {
    return this.texts ? this.texts.join("\n") : this.text;
  }

  /** One string is a tenth of what a thousand cost. */
  seal() {
    if (!this.texts || this.open || this.count < SIZE) return;
    this.text = this.texts.join("\n");
    this.ends = new Uint32Array(SIZE);
    let end = -1;
    this.texts.forEach((text, offset) => { this.ends[offset] = end += text.length + 1; });
    this.texts = null;
  }
}

/** What a run has printed, as far as it is kept. */
export class LineStore {
  /** Index of the first row kept, and of the one behind the last. */
  first = 0;
  end = 0;
  /** Lines received, and lines that gaps count. */
  lines = 0;
  missing = 0;
  /** Lines received that are no longer kept. */
  discarded = 0;
  blocks = /** @type {Block[]} */ ([]);

  #characters = 0;
  #open = /** @type {Partial<Record<Kind, number>>} */ ({}); // the row whose line is unfinished
  #styles = /** @type {Partial<Record<Kind, Style | null>>} */ ({}); // in which the stream's next line begins

  /** @param {number} mostRows Rows that are kept; a few more, until their block is full. */
  constructor(mostRows) {
    this.mostRows = mostRows;
  }

  /**
   * Adds the text of an event: one line, or several joined by newlines.
   *
   * @param {"stdout" | "stderr"} kind
   * @param {string} text
   * @param {boolean} partial The last line goes on with the next text of the same stream.
   * @param {number} now
   */
  add(kind, text, partial, now) {
    let start = 0;
    for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", start)) {
      this.#piece(kind, text.slice(start, end), true, now);
      start = end + 1;
    }
    this.#piece(kind, start ? text.slice(start) : text, !partial, now);
  }

  /**
   * Says that lines are missing here. No line goes on across it.
   *
   * @param {string} words
   * @param {number} count
   * @param {number} now
   */
  gap(words, count, now) {
    for (const kind of KINDS) this.#close(kind);
    this.#styles = {};
    this.missing += count;
    this.#append("notice", words, 0, null, now);
  }

  /** @param {"stdout" | "stderr"} kind @param {string} text @param {boolean} isWhole @param {number} now */
  #piece(kind, text, isWhole, now) {
    const open = this.#open[kind];
    if (open !== undefined) {
      this.#extend(open, text);
    } else {
      this.lines += 1;
      const style = this.#styles[kind] ?? null;
      this.#append(kind, text, this.lines + this.missing, style, now);
      if (isWhole) {
        const behind = styleBehind(text, style);
        if (behind !== style) this.#styles[kind] = behind;
        return;
      }
      this.#open[kind] = this.end - 1;
      this.#blockOf(this.end - 1).open += 1;
    }
    if (isWhole) this.#close(kind);
  }

  /** @param {Kind} kind @param {string} text @param {number} number @param {Style | null} style @param {number} now */
  #append(kind, text, number, style, now) {
    let block = this.blocks.at(-1);
    if (!block || block.count === SIZE) {
      block?.seal();
      block = new Block(this.end);
      this.blocks.push(block);
    }
    const offset = block.count;
    /** @type {string[]} */ (block.texts).push(text);
    block.kinds[offset] = KINDS.indexOf(kind);
    block.numbers[offset] = number;
    block.times[offset] = now;
    if (style) block.styles.set(offset, style);
    block.hasControls ||= CONTROL.test(text);
    block.characters += text.length;
    block.count += 1;
    this.#characters += text.length;
    this.end += 1;
    this.#discard();
  }

  /** @param {number} index @param {string} added */
  #extend(index, added) {
    if (index < this.first) return; // its beginning is gone
    const block = this.#blockOf(index);
    const texts = /** @type {string[]} */ (block.texts);
    const offset = index - block.start;
    const before = texts[offset];
    let text = before + added;
    if (text.length > LONG && CONTROL.test(text)) {
      text = new TerminalLine(block.styles.get(offset) ?? null).write(text).settled();
    }
    texts[offset] = text;
    block.hasControls ||= CONTROL.test(text);
    block.characters += text.length - before.length;
    this.#characters += text.length - before.length;
  }

  /** @param {Kind} kind */
  #close(kind) {
    const index = this.#open[kind];
    if (index === undefined) return;
    delete this.#open[kind];
    if (index < this.first) return;
    const block = this.#blockOf(index);
    const { text, style } = this.row(index);
    this.#styles[kind] = styleBehind(text, style);
    block.open -= 1;
    block.seal();
  }

  /** Lets the oldest rows go, a block at a time. */
  #discard() {
    while (this.blocks.length > 1 && (this.end - this.first > this.mostRows || this.#characters > MOST_CHARACTERS)) {
      const block = /** @type {Block} */ (this.blocks.shift());
      this.#characters -= block.characters;
      this.first += block.count;
      for (let offset = 0; offset < block.count; offset += 1) this.discarded += block.numbers[offset] ? 1 : 0;
    }
  }

  /** @param {number} index */
  #blockOf(index) {
    return this.blocks[Math.floor((index - this.first) / SIZE)];
  }

  /** @param {number} index From `first` to `end`. @returns {Row} */
  row(index) {
    const block = this.#blockOf(index);
    const offset = index - block.start;
    const kind = KINDS[block.kinds[offset]];
    return {
      kind,
      number: block.numbers[offset],
      text: block.textAt(offset),
      style: block.styles.get(offset) ?? null,
      at: block.times[offset],
      isOpen: this.#open[kind] === index,
    };
  }
}
