/**
 * What an event of the bridge means, in each of its dialects.
 *
 * @module
 */

/**
 * @typedef {object} Message One event, as `onmessage` would parse it.
 * @property {string} type `start`, `stdout`, `stderr`, `exit`, `error`, `gap`, or the upstream's own.
 * @property {string} [line] Of `stdout` and `stderr`; several lines, joined by newlines, under `Coalesce`.
 * @property {boolean} [partial] The script has yet to finish this line.
 * @property {number | string | null} [code] Of `exit` and `error`.
 * @property {string} [message] Of `error`.
 * @property {number} [status] Of an `error` that says why there is no run: the HTTP status.
 * @property {number | null} [dropped] Of `gap`: how many events are missing; `null` if that is unknown.
 * @property {number} [bytes] Of `gap`: how many bytes these events had.
 * @property {string} [run] Of `start`: the run's token.
 * @property {string} [data] Of an event whose data is no JSON object.
 */

const ID = /^([A-Za-z0-9_-]{16})\.(?:(\d+)|gone)$/; // of the bridge's events: the run's token, and a number
const GAP = /^ gap dropped=(\d+|unknown)(?: bytes=(\d+))?$/; // how a stream that is passed on as it is tells of missing events

/**
 * The event's JSON object. Its `type` is the event's name, if the stream gave it one (dialects `named` and `verbatim`).
 *
 * @param {string} type
 * @param {string} data
 * @returns {Message}
 */
export function messageOf(type, data) {
  let body;
  try {
    body = JSON.parse(data);
  } catch {
    return { type, data };
  }
  if (body === null || typeof body !== "object" || Array.isArray(body)) return { type, data };
  if (type !== "message") body.type = type;
  else if (typeof body.type !== "string") body.type = "message";
  return body;
}

/**
 * The gap that a comment tells of, if it does.
 *
 * @param {string} comment
 * @returns {Message | null}
 */
export function gapOf(comment) {
  const found = GAP.exec(comment);
  if (!found) return null;
  const [, dropped, bytes] = found;
  return { type: "gap", dropped: dropped === "unknown" ? null : Number(dropped), ...(bytes && { bytes: Number(bytes) }) };
}

/**
 * The run and the number that an id of the bridge's names; `null` for any other id. The number is `null` where the bridge
 * says that it does not know the run, or has lost it.
 *
 * @param {string} id
 * @returns {{ token: string, number: number | null } | null}
 */
export function placeOf(id) {
  const found = ID.exec(id);
  return found && { token: found[1], number: found[2] === undefined ? null : Number(found[2]) };
}

/**
 * Whether a run's first message shows that the bridge has words of its own in this stream, as in all dialects but
 * `verbatim`, where an `exit` or `error` is the upstream's, and more may come.
 *
 * @param {Message} message
 * @param {string} id
 * @param {string | null} token The run's, if it is known.
 */
export function isOwn(message, id, token) {
  const { type, run, dropped } = message;
  if (type === "start") {
    const first = `${run}.0`;
    return placeOf(first) !== null && (id === "" || id === first) && (token === null || token === run);
  }
  return (type === "gap" && dropped !== undefined) || placeOf(id)?.number === null;
}

/**
 * Whether nothing comes after this message.
 *
 * @param {Message} message
 * @param {string} id
 * @param {boolean | null} isVerbatim Whether only the bridge's word that the run is gone is its own.
 */
export function isTerminal(message, id, isVerbatim) {
  return (message.type === "exit" || message.type === "error") && (!isVerbatim || placeOf(id)?.number === null);
}
