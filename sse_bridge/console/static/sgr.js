/**
 * The style of text, as "select graphic rendition" (ECMA-48, 8.3.117) and hyperlinks (OSC 8) set it.
 *
 * A style is never changed, so many characters can share one. `null` is the plain style.
 *
 * @module
 */

/**
 * @typedef {object} Style
 * @property {boolean} [bold]
 * @property {boolean} [dim]
 * @property {boolean} [italic]
 * @property {boolean} [underline]
 * @property {boolean} [inverse]
 * @property {boolean} [hidden]
 * @property {boolean} [strike]
 * @property {number | string} [ink] One of the sixteen colours by its number, or `rgb(...)`.
 * @property {number | string} [ground]
 * @property {string} [link] Where the text leads to; http or https.
 */

/** What a code sets, or takes back. @type {Record<number, Partial<Style>>} */
const SWITCHES = {
  1: { bold: true },
  2: { dim: true },
  3: { italic: true },
  7: { inverse: true },
  8: { hidden: true },
  9: { strike: true },
  21: { underline: true },
  22: { bold: false, dim: false },
  23: { italic: false },
  24: { underline: false },
  27: { inverse: false },
  28: { hidden: false },
  29: { strike: false },
  39: { ink: undefined },
  49: { ground: undefined },
};

/**
 * A style behind a sequence.
 *
 * @param {Style | null} style Before it.
 * @param {string} parameters Between `CSI` and `m`.
 * @returns {Style | null}
 */
export function rendered(style, parameters) {
  if (/[<-?]/.test(parameters)) return style; // private: other settings of a terminal
  /** @type {Style} */
  let next = { ...style };
  const codes = parameters.split(";");
  for (let index = 0; index < codes.length; index += 1) {
    const [code, ...inner] = codes[index].split(":").map((digits) => Number(digits || 0));
    if (code === 0) next = next.link ? { link: next.link } : {};
    else if (code === 4) next.underline = inner[0] !== 0;
    else if (code in SWITCHES) Object.assign(next, SWITCHES[code]);
    else if (code === 38 || code === 48 || code === 58) {
      const { colour, used } = inner.length ? { colour: inner, used: 0 } : following(codes, index + 1);
      index += used;
      const value = colourOf(colour);
      if (code !== 58 && value !== undefined) next[code === 38 ? "ink" : "ground"] = value;
    } else setBasic(next, code);
  }
  return settled(next);
}

/**
 * A style with another link.
 *
 * @param {Style | null} style
 * @param {string} address Empty for the end of a link.
 * @returns {Style | null}
 */
export function linked(style, address) {
  return settled({ ...style, link: safe(address) });
}

/** Without what is off. @param {Style} style @returns {Style | null} */
function settled(style) {
  for (const key of /** @type {(keyof Style)[]} */ (Object.keys(style))) {
    if (style[key] === false || style[key] === undefined) delete style[key];
  }
  return Object.keys(style).length ? style : null;
}

/** What a script prints may lead to pages, and to nothing that a browser would run. @param {string} address */
function safe(address) {
  if (!/^https?:\/\//i.test(address)) return undefined;
  try {
    return new URL(address).href;
  } catch {
    return undefined;
  }
}

/** The eight colours, and their bright ones. @param {Style} style @param {number} code */
function setBasic(style, code) {
  if (code >= 30 && code <= 37) style.ink = code - 30;
  else if (code >= 90 && code <= 97) style.ink = code - 82;
  else if (code >= 40 && code <= 47) style.ground = code - 40;
  else if (code >= 100 && code <= 107) style.ground = code - 92;
}

/** `38;5;n` and `38;2;r;g;b` go on in the next codes; `38:5:n` keeps to itself. @param {string[]} codes @param {number} index */
function following(codes, index) {
  const used = codes[index] === "5" ? 2 : codes[index] === "2" ? 4 : 0;
  return { colour: codes.slice(index, index + used).map(Number), used };
}

/** @param {number[]} colour Its kind, then its index or its levels. */
function colourOf(colour) {
  if (colour[0] === 5) return indexed(colour[1]);
  return colour[0] === 2 ? direct(colour.slice(1).slice(-3)) : undefined;
}

/** By levels of red, green and blue. Some terminals take those above 255 for 255. @param {number[]} levels */
function direct(levels) {
  if (levels.length < 3 || levels.some(Number.isNaN)) return undefined;
  return `rgb(${levels.map((level) => Math.min(level, 255)).join(", ")})`;
}

/** Of the palette of 256: one of the sixteen, of a cube of six by six by six, or of 24 greys. @param {number} index */
function indexed(index) {
  if (!(index >= 0 && index <= 255)) return undefined;
  if (index < 16) return index;
  if (index >= 232) return direct(Array(3).fill(8 + 10 * (index - 232)));
  const levels = [Math.floor((index - 16) / 36), Math.floor((index - 16) / 6) % 6, (index - 16) % 6];
  return direct(levels.map((level) => (level ? 55 + 40 * level : 0)));
}

/**
 * The sequences that set a style from nothing.
 *
 * @param {Style | null} style
 */
export function sequenceOf(style) {
  if (style === null) return "\x1b[0m";
  const codes = ["0"];
  if (style.bold) codes.push("1");
  if (style.dim) codes.push("2");
  if (style.italic) codes.push("3");
  if (style.underline) codes.push("4");
  if (style.inverse) codes.push("7");
  if (style.hidden) codes.push("8");
  if (style.strike) codes.push("9");
  if (style.ink !== undefined) codes.push(colourCode(style.ink, 38));
  if (style.ground !== undefined) codes.push(colourCode(style.ground, 48));
  return `\x1b[${codes.join(";")}m`;
}

/** @param {number | string} colour @param {number} base */
function colourCode(colour, base) {
  return typeof colour === "number" ? `${base};5;${colour}` : `${base};2;${colour.match(/\d+/g)?.join(";")}`;
}
