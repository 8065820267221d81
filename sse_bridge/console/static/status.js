/**
 * What is said of a run: its state, its end, what Stop has achieved, and gaps.
 *
 * @module
 */

import { counted, size } from "./texts.js";

/** @typedef {import("./messages.js").Message} Message */
/** @typedef {{ state: string, label: string, message?: string, code?: string }} Status */

/** @type {Record<string, Status>} */
export const STATES = {
  idle: { state: "idle", label: "idle" },
  starting: { state: "connecting", label: "connecting" },
  busy: { state: "connecting", label: "waiting", message: "The server is busy. Trying again." },
  waiting: { state: "connecting", label: "waiting", message: "The server cannot be reached. Trying again." },
  running: { state: "running", label: "running" },
  watching: { state: "running", label: "watching" },
  reconnecting: { state: "connecting", label: "reconnecting", message: "Connection lost." },
  over: { state: "stopped", label: "over", message: "The server has no more of this run." },
  naming: { state: "stopped", label: "stopping", message: "The script will be ended as soon as the server has named it." },
  asking: { state: "stopped", label: "stopping", message: "Asking the server to end the script." },
};

/** What a run says of itself until it is over. @param {import("./follow.js").Run} run @returns {Status} */
export function going({ state, isBusy, status }) {
  if (state === "waiting" && isBusy) return STATES.busy;
  return status === null ? STATES[state] : { ...STATES[state], message: `The server answered ${status}. Trying again.` };
}

/** What the last message says. @param {Message} message @returns {Status} */
export function ending(message) {
  if (message.type === "exit") {
    const code = String(message.code ?? "unknown");
    const words = /** @type {any} */ (message).timed_out ? "The time limit was reached." : "";
    return { state: "exit", label: `exit code ${code}`, message: words, code };
  }
  const words = asText(message.message);
  if (message.code === "cancelled") return { state: "stopped", label: "stopped", message: "The script was stopped on request." };
  if (message.code === "run_unknown") return { state: "stopped", label: "over", message: words };
  if (message.status !== undefined) return { state: "error", label: "refused", message: `${words} (${message.status})` };
  return { state: "error", label: "error", message: [message.code, words].filter(Boolean).join(": ") };
}

/** @type {Record<string, Status>} */
export const STOPPED = {
  ended: { state: "stopped", label: "stopped", message: "The script has ended." },
  requested: { state: "stopped", label: "stopping", message: "The server was asked to end the script. Its end has not been seen yet." },
  unknown: { state: "stopped", label: "over", message: "The server does not know this run. It may have ended some time ago." },
  "never started": { state: "stopped", label: "stopped", message: "No script was started." },
};

/** @param {any} error @param {boolean} isOver Whether the run is, so that Stop cannot be pressed again. @returns {Status} */
export function stopFailed(error, isOver) {
  const reason = error.status ? `The server refused (${error.status}).` : "The server did not answer.";
  const message = `${reason} Whether the script still runs is unknown.${isOver ? "" : " Press Stop to ask again."}`;
  return { state: "error", label: "unknown", message };
}

/** What a row says where lines are missing. @param {any} gap @param {string} id */
export function gapWords(gap, id) {
  if (typeof gap.dropped !== "number") return "The sandbox’s connection was lost here, lines may be missing";
  return `${counted(gap.dropped, "line")} left out here${textLeftOut(gap, id)}`;
}

/** A gap counts frames, and what a frame holds besides its text is known. @param {any} gap @param {string} id */
function textLeftOut({ dropped, bytes }, id) {
  if (!bytes) return "";
  const frame = `id: ${id}\ndata: {"type":"stdout","line":""}\n\n`.length - 1; // its newline belongs to the text
  return ` (about ${size(Math.max(0, bytes - dropped * frame))} of text)`;
}

/** What an application raises may be any JSON. @param {unknown} reason */
function asText(reason) {
  return typeof reason === "string" ? reason : JSON.stringify(reason ?? "");
}
