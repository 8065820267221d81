/**
 * Makes elements. Text is only ever set as text, so that what a script prints stays text.
 *
 * @module
 */

/**
 * @param {string} name
 * @param {Record<string, string | boolean>} [attributes] `true` sets one without a value, `false` leaves it out.
 * @param {(Node | string)[]} [children]
 * @returns {HTMLElement}
 */
export function element(name, attributes = {}, children = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Strokes on a ground of 16 by 16. */
const ICONS = {
  find: "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9ZM10.5 10.5 14 14",
  wrap: "M2 3.5h12M2 12.5h3M2 8h9.5a2.25 2.25 0 0 1 0 4.5H8.5M10.25 10.75 8.5 12.5l1.75 1.75",
  times: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 4.75V8l2.25 1.75",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  download: "M8 2v8.5M4.5 7 8 10.5 11.5 7M2.5 13.5h11",
  previous: "M3.5 10 8 5.5l4.5 4.5",
  next: "M3.5 6 8 10.5 12.5 6",
  close: "M4 4l8 8M12 4l-8 8",
  end: "M8 2v8.5M4.5 7 8 10.5 11.5 7M3 13.5h10",
};

/** @param {keyof typeof ICONS} name */
function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  const path = document.createElementNS(namespace, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * A button with an icon and a name.
 *
 * @param {keyof typeof ICONS} name
 * @param {string} label
 * @param {Record<string, string | boolean>} [attributes]
 */
export function iconButton(name, label, attributes = {}) {
  const id = attributes.id ?? name;
  return element("button", { type: "button", class: "icon", title: label, "aria-label": label, ...attributes, id }, [icon(name)]);
}
