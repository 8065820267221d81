/**
 * A line of output as a terminal shows it: what carriage returns and erasing leave of it, in which styles, and without
 * what prints nothing.
 *
 * Sequences that leave the line (to another row, or another screen) have no effect: each line stays where it is.
 *
 * @module
 */

import { linked, rendered, sequenceOf } from "./sgr.js";

/** @typedef {import("./sgr.js").Style} Style */
/** @typedef {{ text: string, style: Style | null }} Part */

/** Characters of a line that are shown. A page that lays out more of a line stands still. */
export const SHOWN = 8_000;

/** Whether a line holds more than text and tabs. Newlines never get here. */
export const CONTROL = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/;
// A control sequence (ECMA-48, 5.4) with its parameters and its final byte; a string, such as a title or a link; any
// other escape sequence; a control character; text.
const TOKEN =
  /(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])([^\x07\x1b\x9c]*)(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]|[\x00-\x1f\x7f-\x9f]|[^\x00-\x1f\x7f-\x9f]+/g;
const UNFINISHED = /(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*\x1b?|\x1b[ -/]*)$/;
/** What sets styles only, and moves nothing: then there is no need to look at each character. */
const MOVES = /[\x08\t\r]|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-ln-~]/;
const CHARACTER = /.[\p{M}\u200d\ufe0e\ufe0f\u{1f3fb}-\u{1f3ff}]*/gsu; // with what combines with it
const PLAIN = /^[ -~]*$/;
const WIDE =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|^\p{Emoji_Presentation}/u;
const TAB = 8;

/** A line that may be written to again. */
export class TerminalLine {
  /** @type {string[]} One for each column; a wide character is followed by an empty one. */
  characters = [];
  /** @type {(Style | null)[]} */
  styles = [];
  column = 0;
  /** Columns beyond what is shown. */
  cut = 0;
  /** The beginning of an escape sequence. */
  pending = "";

  /** @param {Style | null} style In which its text begins; then, in which the text behind it does. */
  constructor(style) {
    this.style = style;
  }

  /** @param {string} text */
  write(text) {
    const all = this.pending + text;
    this.pending = UNFINISHED.exec(all)?.[0] ?? "";
    for (const match of all.slice(0, all.length - this.pending.length).matchAll(TOKEN)) {
      const [token, parameters, final, string] = match;
      if (final !== undefined) this.#control(final, parameters);
      else if (string !== undefined) this.style = withString(this.style, token, string);
      else if (token === "\r") this.column = 0;
      else if (token === "\b") this.column = Math.max(0, this.column - 1);
      else if (token === "\t") this.column += TAB - (this.column % TAB);
      else if (!CONTROL.test(token)) this.#put(token);
    }
    return this;
  }

  /** @param {string} text */
  #put(text) {
    const isPlain = PLAIN.test(text);
    for (const [character] of text.matchAll(CHARACTER)) {
      const width = isPlain || !WIDE.test(character) ? 1 : 2;
      if (this.column + width <= SHOWN) {
        this.#fill(this.column);
        this.#place(character, width);
      } else {
        this.cut = Math.max(this.cut, this.column + width - SHOWN);
      }
      this.column += width;
    }
  }

  /** @param {number} end Columns that are there before it, at least. */
  #fill(end) {
    while (this.characters.length < end) this.#set(this.characters.length, " ", null);
  }

  /** Half of a wide character that is overwritten takes the other half with it. @param {string} character @param {number} width */
  #place(character, width) {
    if (this.characters[this.column] === "" && this.column > 0) this.#set(this.column - 1, " ", this.styles[this.column - 1]);
    const after = this.column + width;
    if (this.characters[after] === "") this.#set(after, " ", this.styles[after]);
    this.#set(this.column, character, this.style);
    if (width === 2) this.#set(this.column + 1, "", this.style);
  }

  /** @param {number} column @param {string} character @param {Style | null} style */
  #set(column, character, style) {
    this.characters[column] = character;
    this.styles[column] = style;
  }

  /** @param {string} final @param {string} parameters */
  #control(final, parameters) {
    const count = Math.min(Number(parameters) || 0, SHOWN);
    if (final === "m") this.style = rendered(this.style, parameters);
    else if (final === "K" || final === "J") this.#erase(count);
    else if (final === "C") this.column += count || 1;
    else if (final === "D") this.column = Math.max(0, this.column - (count || 1));
    else if (final === "G" || final === "`") this.column = Math.max(0, count - 1);
    else if (final === "P") this.#remove(count || 1);
    else if (final === "@") this.#insert(count || 1);
    else if (final === "X") this.#blank(this.column, this.column + (count || 1));
  }

  /** From the cursor on (0), up to it (1), or all of it (2). @param {number} which */
  #erase(which) {
    if (which === 1) return this.#blank(0, this.column + 1);
    if (which > 2) return;
    const end = which === 0 ? this.column : 0;
    this.cut = end > SHOWN ? this.cut : 0;
    this.characters.length = this.styles.length = Math.min(this.characters.length, end);
  }

  /** @param {number} start @param {number} end */
  #blank(start, end) {
    for (let column = start; column < Math.min(end, this.characters.length); column += 1) this.#set(column, " ", null);
  }

  /** @param {number} count */
  #remove(count) {
    this.characters.splice(this.column, count);
    this.styles.splice(this.column, count);
  }

  /** @param {number} count */
  #insert(count) {
    if (this.column >= this.characters.length) return;
    this.characters.splice(this.column, 0, ...Array(count).fill(" "));
    this.styles.splice(this.column, 0, ...Array(count).fill(null));
  }

  /** The text with its styles, each as long as possible. @returns {Part[]} */
  parts() {
    const parts = /** @type {Part[]} */ ([]);
    for (let column = 0; column < this.characters.length; column += 1) {
      append(parts, this.characters[column], this.styles[column]);
    }
    return parts;
  }

  /** A text that leads to the same line, and to the same place in it: what was overwritten is left out. */
  settled() {
    const text = this.parts().map(({ text, style }) => sequenceOf(style) + text);
    return `${text.join("")}${sequenceOf(this.style)}\x1b[${this.column + 1}G${this.pending}`;
  }
}

/**
 * A line's text and styles.
 *
 * @param {string} line
 * @param {Style | null} style In which it begins.
 * @returns {{ parts: Part[], cut: number }} `cut` counts the characters that are left out at its end.
 */
export function partsOf(line, style) {
  if (style === null && !CONTROL.test(line)) {
    return { parts: line ? [{ text: line.slice(0, SHOWN), style }] : [], cut: Math.max(0, line.length - SHOWN) };
  }
  if (MOVES.test(line)) {
    const terminal = new TerminalLine(style).write(line);
    return { parts: terminal.parts(), cut: terminal.cut };
  }
  return straight(line, style);
}

/** A line that is only written from left to right. @param {string} line @param {Style | null} style */
function straight(line, style) {
  const parts = /** @type {Part[]} */ ([]);
  let left = SHOWN;
  let cut = 0;
  for (const [token, parameters, final, string] of withoutUnfinished(line).matchAll(TOKEN)) {
    if (final !== undefined) style = rendered(style, parameters);
    else if (string !== undefined) style = withString(style, token, string);
    else if (!CONTROL.test(token)) {
      if (left > 0) append(parts, token.slice(0, left), style);
      cut += Math.max(0, token.length - left);
      left -= Math.min(left, token.length);
    }
  }
  return { parts, cut };
}

/** A line's text as it is shown, all of it. @param {string} line */
export function plain(line) {
  if (!CONTROL.test(line)) return line;
  if (MOVES.test(line)) return partsOf(line, null).parts.map(({ text }) => text).join("");
  return withoutUnfinished(line).replace(TOKEN, (token, _, final, string) =>
    final !== undefined || string !== undefined || CONTROL.test(token) ? "" : token);
}

/**
 * The style in which the text behind a line begins: in a terminal, a colour lasts until it is reset.
 *
 * @param {string} line
 * @param {Style | null} style
 */
export function styleBehind(line, style) {
  if (!/[\x1b\x9b\x9d]/.test(line)) return style;
  for (const [token, parameters, final, string] of withoutUnfinished(line).matchAll(TOKEN)) {
    if (final === "m") style = rendered(style, parameters);
    else if (string !== undefined) style = withString(style, token, string);
  }
  return style;
}

/** @param {string} line */
function withoutUnfinished(line) {
  return line.slice(0, line.length - (UNFINISHED.exec(line)?.[0].length ?? 0));
}

/** A link begins or ends; titles and the like print nothing. @param {Style | null} style @param {string} token @param {string} string */
function withString(style, token, string) {
  const link = /^8;[^;]*;(.*)$/s.exec(string);
  return link && /^(?:\x1b\]|\x9d)/.test(token) ? linked(style, link[1]) : style;
}

/** @param {Part[]} parts @param {string} text @param {Style | null} style */
function append(parts, text, style) {
  const last = parts.at(-1);
  if (last && last.style === style) last.text += text;
  else parts.push({ text, style });
}
