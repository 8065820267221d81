/**
 * Reads an event stream as WHATWG HTML 9.2.6 has it: bytes in, events and comments out, however they are cut.
 *
 * It knows neither a connection nor what an event means.
 *
 * @module
 */

/**
 * @typedef {object} Sink What hears of the stream's content, in its order.
 * @property {(type: string, data: string, id: string) => void} event An event is complete. `type` is `message` unless
 *   the stream names another; `id` is the last one that the stream has set.
 * @property {(text: string) => void} [comment] A comment line, without its colon.
 */

/** A parser for one connection. */
export class EventParser {
  /** The `id` of the last complete event: where to go on. */
  lastEventId = "";
  /** Milliseconds until a reconnection, as the stream asks for; `null` if it does not. @type {number | null} */
  retry = null;

  #decoder = new TextDecoder(); // drops one byte order mark, and keeps a character that is cut for the next chunk
  #pieces = /** @type {string[]} */ ([]); // of a line that has no end yet; joined once
  #swallowsLineFeed = false; // the last chunk ended in a CR, which ended a line: an LF in front belongs to it
  #type = "";
  #data = /** @type {string[]} */ ([]);
  #id;

  /**
   * @param {Sink} sink
   * @param {string} [lastEventId] The id of the last event of earlier connections.
   */
  constructor(sink, lastEventId = "") {
    this.sink = sink;
    this.lastEventId = lastEventId;
    this.#id = lastEventId;
  }

  /** Takes the next bytes of the stream. What the last block holds when the stream ends is discarded (9.2.6).
   * @param {Uint8Array} chunk */
  push(chunk) {
    const text = this.#withLineFeeds(this.#decoder.decode(chunk, { stream: true }));
    let start = 0;
    for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", start)) {
      let line = text.slice(start, end);
      if (this.#pieces.length) {
        this.#pieces.push(line);
        line = this.#pieces.join("");
        this.#pieces = [];
      }
      this.#line(line);
      start = end + 1;
    }
    if (start < text.length) this.#pieces.push(text.slice(start));
  }

  /** Lines end in CR, LF or CRLF. A CR at the end of a chunk ends its line at once: waiting would hold events back.
   * @param {string} text */
  #withLineFeeds(text) {
    if (text === "") return text;
    const whole = this.#swallowsLineFeed && text[0] === "\n" ? text.slice(1) : text;
    this.#swallowsLineFeed = text.endsWith("\r");
    return whole.includes("\r") ? whole.replace(/\r\n?/g, "\n") : whole;
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return this.sink.comment?.(line.slice(1));
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  #dispatch() {
    this.lastEventId = this.#id;
    const data = this.#data;
    const type = this.#type || "message";
    this.#type = "";
    if (data.length === 0) return;
    this.#data = [];
    this.sink.event(type, data.length === 1 ? data[0] : data.join("\n"), this.#id);
  }
}
