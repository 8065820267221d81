/**
 * Follows runs of an `sse_bridge` from a page. No dependency, no build step; see docs/browser.md.
 *
 * @module
 */

export { StopFailed } from "./answers.js";
export { follow, Run } from "./follow.js";
export { inHash, inSession } from "./memory.js";
export { EventParser } from "./parser.js";
