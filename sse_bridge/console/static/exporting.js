/**
 * All lines as one text, for the clipboard or for a file.
 *
 * @module
 */

import { plain } from "./terminal.js";

/** @typedef {import("./store.js").LineStore} LineStore */

/**
 * The text as it is shown, in pieces.
 *
 * @param {LineStore} store
 * @returns {string[]}
 */
export function pieces(store) {
  return store.blocks.map((block) => {
    const text = block.joined();
    return `${block.hasControls ? text.split("\n").map(plain).join("\n") : text}\n`;
  });
}

/** @param {LineStore} store @param {string} name */
export function download(store, name) {
  const url = URL.createObjectURL(new Blob(pieces(store), { type: "text/plain;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after this turn
}

/** Without https a page has no clipboard, but may copy what is selected. @param {string} text */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  if (!isDone) throw new Error("The browser did not copy.");
}
