/**
 * The parts of `<sse-console>`, before they do anything.
 *
 * @module
 */

import { element, iconButton } from "./dom.js";
import { duration } from "./texts.js";

/**
 * Fills a shadow root.
 *
 * @param {ShadowRoot} root
 * @returns {(id: string) => any} The parts by their ids.
 */
export function build(root) {
  root.append(bar(), search(), pane(), element("div", { id: "announcer", class: "unseen", role: "status", "aria-live": "polite" }));
  return (id) => root.getElementById(id);
}

function bar() {
  return element("div", { class: "bar", part: "bar" }, [
    element("div", { class: "actions" }, [
      element("button", { id: "run", type: "button" }, ["Run"]),
      element("button", { id: "stop", type: "button", disabled: true }, ["Stop"]),
    ]),
    element("div", { id: "state", role: "status", "aria-live": "polite", "data-state": "idle" }, [
      element("span", { class: "badge", id: "badge" }),
      element("span", { id: "message", hidden: true }),
      element("a", { id: "share", target: "_blank", rel: "noopener", hidden: true }, ["Open in a second tab"]),
    ]),
    element("dl", { class: "figures" }, [
      figure("lines", "Lines", false),
      figure("missing", "Missing", true),
      figure("events", "Events", true),
      figure("reconnects", "Reconnects", true),
      figure("elapsed", "Elapsed", false, duration(0)),
    ]),
    element("div", { class: "tools", role: "group", "aria-label": "Output" }, [
      iconButton("find", "Find (Ctrl+F)", { "aria-label": "Find", "aria-expanded": "false", "aria-controls": "search" }),
      iconButton("wrap", "Wrap long lines", { "aria-pressed": "false" }),
      iconButton("times", "Times of arrival", { "aria-pressed": "false" }),
      iconButton("copy", "Copy all lines"),
      iconButton("download", "Download all lines"),
    ]),
  ]);
}

/** @param {string} id @param {string} name @param {boolean} hidden */
function figure(id, name, hidden, value = "0") {
  return element("div", { hidden }, [element("dt", { id: `${id}-name` }, [name]), element("dd", { id }, [value])]);
}

function search() {
  return element("form", { id: "search", role: "search", hidden: true, "aria-label": "Find in the output" }, [
    element("input", { id: "query", type: "search", "aria-label": "Find", placeholder: "Find", autocomplete: "off", spellcheck: "false" }),
    iconButton("previous", "Previous match (Shift+Enter)", { "aria-label": "Previous match" }),
    iconButton("next", "Next match (Enter)", { "aria-label": "Next match" }),
    element("output", { id: "count", for: "query", "aria-live": "polite" }),
    iconButton("close", "Close (Escape)", { "aria-label": "Close find" }),
  ]);
}

function pane() {
  const rows = element("div", { class: "rows", id: "rows" });
  const space = element("div", { class: "space", id: "space" }, [element("div", { class: "window" }, [rows])]);
  const end = iconButton("end", "Jump to the end", { class: "end", hidden: true });
  end.append(element("span", { id: "end-words" }));
  end.removeAttribute("aria-label");
  return element("div", { class: "pane", part: "pane" }, [
    element("p", { id: "earlier", hidden: true }),
    element("p", { id: "empty" }),
    // Rows come and go as they are scrolled, so the region is silent, and `announcer` reads what is new.
    element("div", { id: "output", role: "log", "aria-live": "off", "aria-label": "Output", tabindex: "0" }, [space]),
    end,
  ]);
}
