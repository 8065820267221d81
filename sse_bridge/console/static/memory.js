/**
 * Where a page keeps the name of its run, so that a reload or a link leads to it.
 *
 * @module
 */

/**
 * @typedef {object} Memory
 * @property {() => string | null} get The token of the run; `null` without one.
 * @property {(token: string | null) => void} set
 */

/**
 * In the address, after `#`. The run is followed after a reload, after Back, and by anyone who opens the link. Other
 * values there, as in `#tab=2&run=...`, are kept.
 *
 * @param {string} [name]
 * @returns {Memory}
 */
export function inHash(name = "run") {
  const values = () => new URLSearchParams(location.hash.slice(1));
  return {
    get: () => values().get(name) || null,
    set(token) {
      const changed = values();
      if (token === null) changed.delete(name);
      else changed.set(name, token);
      const hash = changed.size ? `#${changed}` : "";
      if (hash !== location.hash) history.replaceState(history.state, "", hash || location.pathname + location.search);
    },
  };
}

/**
 * In this tab alone: a reload follows the run, and the address stays as it is.
 *
 * @param {string} [name]
 * @returns {Memory}
 */
export function inSession(name = "sse-bridge-run") {
  return {
    get: () => sessionStorage.getItem(name),
    set(token) {
      if (token === null) sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, token);
    },
  };
}
