/**
 * What an answer of the bridge's means for its client, and what the client says without one.
 *
 * @module
 */

import { retryAfter } from "./waiting.js";

/** @typedef {import("./messages.js").Message} Message */

/**
 * `wait`: the bridge asks to be asked again, and has started nothing. `lost`: something in between has answered, maybe after
 * it had handed the request on, or the application failed; what the bridge did is unknown. The message of `refused` says why.
 *
 * @typedef {Details & ({ kind: "stream" | "accepted" | "over" | "wait" | "lost" } | { kind: "refused", message: Message })} Answer
 */

/**
 * @typedef {object} Details
 * @property {number | null} [after] Of `wait` and `lost`: milliseconds.
 * @property {number} [status] Of `wait` and `lost`: the HTTP status.
 * @property {string | null} [token] Of `stream` and `accepted`: the run.
 * @property {string | null} [href] Of `accepted`: the run's address, relative to the request's.
 */

/**
 * @param {Response} response
 * @returns {Promise<Answer>}
 */
export async function answerOf(response) {
  const type = response.headers.get("content-type") ?? "";
  const token = response.headers.get("sse-bridge-run");
  if (response.status === 200 && type.startsWith("text/event-stream")) return { kind: "stream", token };
  if (response.status === 204) return { kind: "over" };
  const body = type.startsWith("application/json") ? await jsonOf(response) : (await discard(response), null);
  if (response.status === 201) {
    const run = body?.run ?? token;
    const href = body?.href ?? response.headers.get("location");
    return run ? { kind: "accepted", token: run, href } : { kind: "lost", status: 201 }; // its body was cut off
  }
  const { status } = response;
  const code = body?.error?.code;
  const isBridge = typeof code === "string"; // gateways have numbers there
  const after = retryAfter(response.headers.get("retry-after"));
  if (status === 429 || (status === 503 && isBridge && code !== "not_shown")) return { kind: "wait", status, after };
  if (status >= 500 && !isBridge) return { kind: "lost", status, after };
  return { kind: "refused", message: refusal(response, body) };
}

/** @param {Response} response */
async function jsonOf(response) {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

/** A body that is left unread would hold its connection. @param {Response} response */
async function discard(response) {
  await response.body?.cancel().catch(() => {});
}

/**
 * The bridge's own words, those of the application's (`{"detail": ...}`), or the status.
 *
 * @param {Response} response
 * @param {any} body
 * @returns {Message}
 */
function refusal(response, body) {
  const { code, message, request_id } = body?.error ?? {};
  const isStream = response.status === 200;
  return {
    type: "error",
    code: code ?? (isStream ? "no_event_stream" : "refused"),
    message: asText(message ?? body?.detail) || (isStream ? "The server sent no event stream." : asStatus(response)),
    status: response.status,
    ...(request_id && { request_id }),
  };
}

/** What an application raises may be any JSON. @param {unknown} words */
function asText(words) {
  return words === undefined || words === null ? "" : typeof words === "string" ? words : JSON.stringify(words);
}

/** @param {Response} response */
function asStatus(response) {
  return `The server answered ${response.status}${response.statusText && ` ${response.statusText}`}.`;
}

/** An end that is this client's own finding. @param {string} code @param {string} message @returns {Message} */
export function failure(code, message) {
  return { type: "error", code, message };
}

/** A start that may have been lost, or may have started a run. @param {number | null} [status] Of the last answer. */
export function startUnknown(status) {
  if (!status) return failure("unknown", "The server did not answer. Whether a run was started is unknown.");
  return failure("unknown", `The server answered ${status}. Whether a run was started is unknown. See the server's log.`);
}

/** A run, or a busy server, that was asked for long enough. @param {number} [status] Of the last answer. */
export function unreachable(status) {
  return failure("unreachable", status ? `The server answered ${status}.` : "The server cannot be reached.");
}

/** A run, or a busy server, whose streams have ended for long enough without a word. @param {boolean} isKnown Whether the run is. */
export function unheard(isKnown) {
  return failure("unreachable", isKnown ? "The server answers, and sends nothing of this run." : "The server is busy.");
}

/** The server refused to end a run. */
export class StopFailed extends Error {
  /** @param {number} status */
  constructor(status) {
    super(`The server refused to end the run (${status}).`);
    this.name = "StopFailed";
    this.status = status;
  }
}
