/**
 * One row as elements: number, time, and text in its styles, with matches of a search marked.
 *
 * Styles are set one by one as properties, which a strict `style-src` allows.
 *
 * @module
 */

import { element } from "./dom.js";
import { partsOf } from "./terminal.js";
import { counted, timeOfDay } from "./texts.js";

/** @typedef {import("./store.js").Row} Row */
/** @typedef {import("./sgr.js").Style} Style */
/** @typedef {import("./terminal.js").Part} Part */

// The sixteen colours on a ground of their own; on the page's, the style sheet has some that can be read in its theme.
const COLOURS = [
  "#000000", "#cd3131", "#0b9e66", "#d7ba0a", "#2472c8", "#bc3fbc", "#1199b8", "#e5e5e5",
  "#666666", "#f14c4c", "#23d18b", "#f5f543", "#3b8eea", "#d670d6", "#29b8db", "#ffffff",
];

/** Whether the browser can give a colour another lightness, as all do since 2024. */
const CAN_LIGHTEN = CSS.supports("color", "oklch(from red l c h)");

/**
 * @param {HTMLElement} node Made by `rowElement`.
 * @param {Row} row
 * @param {RegExp | null} pattern
 */
export function paint(node, row, pattern) {
  const text = /** @type {HTMLElement} */ (node.lastElementChild);
  const { parts, cut } = partsOf(row.text, row.style);
  const pieces = pattern && row.kind !== "notice" ? withMatches(parts, pattern) : parts.map((part) => styled(part.text, part.style));
  text.replaceChildren(...pieces);
  if (cut) text.append(element("span", { class: "cut" }, [` … (${counted(cut, "more character")})`]));
}

/** @param {Row} row */
export function rowElement(row) {
  const isNotice = row.kind === "notice";
  const node = element("div", { class: `row ${row.kind}` }, [element("span", { class: "text" })]);
  if (!isNotice) node.dataset.number = String(row.number);
  node.dataset.time = timeOfDay(row.at);
  if (row.kind === "stderr") node.prepend(element("span", { class: "unseen" }, ["stderr: "]));
  return node;
}

/**
 * The parts cut at the ends of matches: one match may run through several styles.
 *
 * @param {Part[]} parts
 * @param {RegExp} pattern
 */
function withMatches(parts, pattern) {
  const whole = parts.map(({ text }) => text).join("");
  pattern.lastIndex = 0; // the search may have left it anywhere
  const matches = [...whole.matchAll(pattern)].map((match) => [match.index, match.index + match[0].length]);
  const nodes = /** @type {Node[]} */ ([]);
  let start = 0;
  for (const { text, style } of parts) {
    let from = start;
    for (const [first, last] of matches) {
      if (last <= from || first >= start + text.length) continue;
      if (first > from) nodes.push(styled(whole.slice(from, first), style));
      const end = Math.min(last, start + text.length);
      nodes.push(element("mark", {}, [styled(whole.slice(Math.max(first, from), end), null)]));
      from = end;
    }
    start += text.length;
    if (from < start) nodes.push(styled(whole.slice(from, start), style));
  }
  return nodes;
}

/** @param {string} text @param {Style | null} style @returns {Node} */
function styled(text, style) {
  if (!style) return document.createTextNode(text);
  const node = style.link
    ? element("a", { href: style.link, target: "_blank", rel: "noopener noreferrer" }, [text])
    : element("span", {}, [text]);
  colour(node, style);
  if (style.bold) node.style.fontWeight = "700";
  if (style.dim) node.style.opacity = "0.75";
  if (style.italic) node.style.fontStyle = "italic";
  if (style.hidden) node.style.visibility = "hidden";
  const decorations = [style.underline && "underline", style.strike && "line-through"].filter(Boolean);
  if (decorations.length) node.style.textDecorationLine = decorations.join(" ");
  return node;
}

/** @param {HTMLElement} node @param {Style} style */
function colour(node, style) {
  const fixed = (/** @type {number | string} */ value) => (typeof value === "number" ? COLOURS[value] : value);
  const { ink, ground } = style.inverse
    ? { ink: style.ground ?? "var(--sse-pane)", ground: style.ink ?? "var(--sse-ink)" }
    : style;
  if (ground !== undefined) {
    node.style.backgroundColor = fixed(ground);
    node.style.color = ink === undefined ? COLOURS[isLight(fixed(ground)) ? 0 : 15] : fixed(ink);
  } else if (ink !== undefined) {
    node.style.color = typeof ink === "number" ? `var(--sse-colour-${ink})` : readable(ink);
  }
}

/** Scripts choose colours for a ground that they cannot know: some would vanish on the page's. @param {string} ink */
function readable(ink) {
  return CAN_LIGHTEN ? `oklch(from ${ink} clamp(var(--sse-darkest), l, var(--sse-lightest)) c h)` : ink;
}

/** @param {string} value `#rrggbb` or `rgb(...)`. */
function isLight(value) {
  const levels = value.startsWith("#")
    ? [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16))
    : (value.match(/\d+/g) ?? []).map(Number);
  return 0.299 * levels[0] + 0.587 * levels[1] + 0.114 * levels[2] > 140;
}
