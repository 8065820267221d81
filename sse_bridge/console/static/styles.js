/**
 * The look of `<sse-console>`. A page overrides any custom property that begins with `--sse-`.
 *
 * The sheet is constructed, so a page needs no `style-src` for it.
 *
 * @module
 */

const LIGHT = `
  --sse-page: #f6f6f4;
  --sse-pane: #ffffff;
  --sse-edge: #d9dad7;
  --sse-control: #83888e;
  --sse-hover: #ececea;
  --sse-ink: #1b1d20;
  --sse-quiet: #5a5f66;
  --sse-accent: #0e5a8a;
  --sse-on-accent: #ffffff;
  --sse-good: #17663a;
  --sse-bad: #a3261b;
  --sse-stderr: #8a3d05;
  --sse-stderr-mark: #c2631a;
  --sse-stderr-ground: #fdf5ec;
  --sse-match: #ffe58a;
  --sse-match-current: #ffb454;
  --sse-current-row: #eef4f8;
  --sse-colour-0: #1b1d20;
  --sse-colour-1: #b3261e;
  --sse-colour-2: #1b6e3c;
  --sse-colour-3: #7d5a00;
  --sse-colour-4: #1f5fbf;
  --sse-colour-5: #97289a;
  --sse-colour-6: #0b6a7c;
  --sse-colour-7: #5f646a;
  --sse-colour-8: #656a70;
  --sse-colour-9: #c22a24;
  --sse-colour-10: #17703f;
  --sse-colour-11: #805b00;
  --sse-colour-12: #2a64cc;
  --sse-colour-13: #a031a2;
  --sse-colour-14: #0a6d7e;
  --sse-colour-15: #3c4043;
  --sse-darkest: 0;
  --sse-lightest: 0.48;
`;

const DARK = `
  --sse-page: #131517;
  --sse-pane: #0c0d0f;
  --sse-edge: #2b2f34;
  --sse-control: #6d747c;
  --sse-hover: #22262a;
  --sse-ink: #e4e6e8;
  --sse-quiet: #9aa1a9;
  --sse-accent: #86c3ec;
  --sse-on-accent: #0a1720;
  --sse-good: #7fd0a0;
  --sse-bad: #ff9d92;
  --sse-stderr: #f3b57a;
  --sse-stderr-mark: #d98a3d;
  --sse-stderr-ground: #1c150d;
  --sse-match: #d9b84a;
  --sse-match-current: #ff9f43;
  --sse-current-row: #161d24;
  --sse-colour-0: #8b9198;
  --sse-colour-1: #ff8a80;
  --sse-colour-2: #7fd0a0;
  --sse-colour-3: #e6c35c;
  --sse-colour-4: #86b7f5;
  --sse-colour-5: #dd9be0;
  --sse-colour-6: #6fcfe0;
  --sse-colour-7: #d5d8db;
  --sse-colour-8: #9aa1a9;
  --sse-colour-9: #ffa69e;
  --sse-colour-10: #9be3b8;
  --sse-colour-11: #f5d97e;
  --sse-colour-12: #a9cdfb;
  --sse-colour-13: #eab6ec;
  --sse-colour-14: #98e2ee;
  --sse-colour-15: #ffffff;
  --sse-darkest: 0.7;
  --sse-lightest: 1;
`;

const SHEET = `
  :host {
    ${LIGHT}
    --sse-sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
    --sse-mono: ui-monospace, "SF Mono", SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
    --sse-size: 0.8125rem;
    --sse-line: 1.25rem;
    container-type: inline-size;
    display: flex;
    flex-direction: column;
    block-size: 30rem;
    min-block-size: 14rem;
    border: 1px solid var(--sse-edge);
    border-radius: 8px;
    background: var(--sse-page);
    overflow: hidden;
    color: var(--sse-ink);
    font: 0.875rem/1.4 var(--sse-sans);
    text-align: start;
    color-scheme: light dark;
  }
  :host([theme="light"]) { color-scheme: light; }
  @media (prefers-color-scheme: dark) { :host(:not([theme="light"])) { ${DARK} } }
  :host([theme="dark"]) { ${DARK} color-scheme: dark; }
  :host([hidden]), [hidden] { display: none !important; }
  *, *::before, *::after { box-sizing: border-box; }

  .unseen {
    position: absolute;
    inline-size: 1px;
    block-size: 1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
    user-select: none;
    -webkit-user-select: none;
  }

  /* Buttons, state and figures. */

  .bar {
    display: flex;
    flex-wrap: wrap;
    align-items: center;
    gap: 0.5rem 0.875rem;
    padding: 0.5rem 0.5rem 0.5rem 0.625rem;
    border-block-end: 1px solid var(--sse-edge);
  }
  .actions { display: flex; gap: 0.375rem; }
  .actions:not(:has(button:not([hidden]))) { display: none; }

  button {
    min-block-size: 2rem;
    margin: 0;
    padding: 0 0.875rem;
    border: 1px solid var(--sse-control);
    border-radius: 6px;
    background: var(--sse-pane);
    color: var(--sse-ink);
    font: 500 0.875rem/1 var(--sse-sans);
    cursor: pointer;
  }
  button:hover:enabled { border-color: var(--sse-ink); }
  button:disabled { border-color: var(--sse-edge); background: transparent; color: var(--sse-quiet); cursor: default; }
  #run:enabled { border-color: var(--sse-accent); background: var(--sse-accent); color: var(--sse-on-accent); }
  #run:hover:enabled { border-color: var(--sse-ink); }
  :focus-visible { outline: 2px solid var(--sse-accent); outline-offset: 1px; }

  .icon {
    display: inline-grid;
    place-items: center;
    inline-size: 2rem;
    padding: 0;
    border-color: transparent;
    background: transparent;
    color: var(--sse-quiet);
  }
  .icon:hover:enabled { border-color: transparent; background: var(--sse-hover); color: var(--sse-ink); }
  .icon[aria-pressed="true"] { background: var(--sse-hover); color: var(--sse-accent); box-shadow: inset 0 -2px var(--sse-accent); }
  .icon:disabled { opacity: 0.5; }
  svg { inline-size: 1rem; block-size: 1rem; fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round; }

  #state {
    display: flex;
    flex: 1 1 12rem;
    flex-wrap: wrap;
    align-items: baseline;
    gap: 0.125rem 0.625rem;
    min-inline-size: 0;
    color: var(--sse-quiet);
    overflow-wrap: anywhere;
  }
  .badge { --tone: var(--sse-quiet); flex: none; color: var(--tone); font-weight: 600; white-space: nowrap; }
  .badge::before {
    content: "";
    display: inline-block;
    inline-size: 0.5rem;
    block-size: 0.5rem;
    margin-inline-end: 0.4375rem;
    border: 2px solid var(--tone);
    border-radius: 50%;
    vertical-align: 0.0625rem;
  }
  :is([data-state="connecting"], [data-state="running"]) .badge { --tone: var(--sse-accent); }
  :is([data-state="error"], [data-state="exit"]) .badge { --tone: var(--sse-bad); }
  [data-state="exit"][data-code="0"] .badge { --tone: var(--sse-good); }
  [data-state="stopped"] .badge { --tone: var(--sse-ink); }
  :is([data-state="running"], [data-state="error"], [data-state="exit"]) .badge::before { background: var(--tone); }
  @media (prefers-reduced-motion: no-preference) {
    :is([data-state="connecting"], [data-state="running"]) .badge::before { animation: breathe 2s ease-in-out infinite; }
    @keyframes breathe { 50% { opacity: 0.35; } }
  }
  a { color: var(--sse-accent); text-underline-offset: 0.1875rem; }

  .figures { display: flex; flex-wrap: wrap; gap: 0.125rem 1rem; margin: 0; font-variant-numeric: tabular-nums; }
  .figures div { display: flex; align-items: baseline; gap: 0.375rem; }
  .figures dt { color: var(--sse-quiet); font-size: 0.8125rem; }
  .figures dd { margin: 0; font: 500 0.8125rem/1.4 var(--sse-mono); }
  #missing { color: var(--sse-stderr); }
  .tools { display: flex; gap: 0.125rem; margin-inline-start: auto; }

  /* Find. */

  #search { display: flex; align-items: center; gap: 0.25rem; margin: 0; padding: 0.375rem 0.5rem 0.375rem 0.625rem; border-block-end: 1px solid var(--sse-edge); }
  #search input {
    flex: 1 1 10rem;
    min-inline-size: 0;
    max-inline-size: 24rem;
    min-block-size: 2rem;
    padding: 0 0.625rem;
    border: 1px solid var(--sse-control);
    border-radius: 6px;
    background: var(--sse-pane);
    color: var(--sse-ink);
    font: var(--sse-size)/1 var(--sse-mono);
  }
  #search output { min-inline-size: 7rem; padding-inline: 0.25rem; color: var(--sse-quiet); font-size: 0.8125rem; font-variant-numeric: tabular-nums; }

  /* The output. */

  .pane {
    position: relative;
    display: flex;
    flex: 1 1 0;
    flex-direction: column;
    min-block-size: 0;
    background: var(--sse-pane);
    overflow: hidden;
  }
  .pane:has(#output:focus-visible) { outline: 2px solid var(--sse-accent); outline-offset: -2px; }
  #output:focus-visible { outline: none; }
  #earlier { flex: none; margin: 0; padding: 0.25rem 0.75rem; border-block-end: 1px solid var(--sse-edge); color: var(--sse-quiet); font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
  #empty { position: absolute; inset-block-start: 0; margin: 0; padding: 0.75rem; color: var(--sse-quiet); pointer-events: none; }

  #output {
    --digits: 3;
    flex: 1 1 0;
    min-block-size: 0;
    margin-block: 0.25rem;
    overflow: auto;
    overflow-anchor: none;
    overscroll-behavior: contain;
    contain: strict;
    scrollbar-width: thin;
    scrollbar-color: var(--sse-control) transparent;
  }
  .space { min-inline-size: 100%; }
  .window { position: sticky; inset-block-start: 0; overflow-x: visible; overflow-y: clip; }
  .rows {
    position: relative;
    inline-size: max-content;
    min-inline-size: 100%;
    font: var(--sse-size)/var(--sse-line) var(--sse-mono);
    font-variant-ligatures: none;
    tab-size: 8;
    will-change: transform;
  }
  .row { display: flex; block-size: var(--sse-line); background: var(--sse-pane); }
  .row::before {
    content: attr(data-number);
    position: sticky;
    inset-inline-start: 0;
    order: -2;
    flex: none;
    inline-size: calc(var(--digits) * 1ch + 1.5rem);
    padding-inline-end: 0.75rem;
    background: inherit;
    color: var(--sse-quiet);
    text-align: end;
    user-select: none;
    -webkit-user-select: none;
  }
  .times .row::after {
    content: attr(data-time);
    order: -1;
    flex: none;
    padding-inline-end: 1rem;
    color: var(--sse-quiet);
    user-select: none;
    -webkit-user-select: none;
  }
  .text { flex: 1 0 auto; padding-inline-end: 0.75rem; white-space: pre; }
  .wraps .rows { inline-size: 100%; }
  .wraps .row { block-size: auto; min-block-size: var(--sse-line); }
  .wraps .text { flex: 1 1 0; min-inline-size: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
  .row.stderr { background: var(--sse-stderr-ground); color: var(--sse-stderr); }
  .row.stderr::before { border-inline-start: 3px solid var(--sse-stderr-mark); }
  .row.notice { color: var(--sse-quiet); font-family: var(--sse-sans); font-style: italic; }
  .row.notice .text { display: flex; gap: 0.75rem; align-items: center; }
  .row.notice .text::after { content: ""; flex: 1 1 2rem; border-block-start: 1px dashed var(--sse-control); }
  .row.current { background: var(--sse-current-row); }
  .row.current::before { color: var(--sse-ink); font-weight: 600; }
  .cut { color: var(--sse-quiet); }
  mark { border-radius: 2px; background: var(--sse-match); color: #1b1d20; }
  .row.current mark { background: var(--sse-match-current); }
  .text a { color: inherit; }

  #end {
    position: absolute;
    inset-inline-end: 1rem;
    inset-block-end: 0.75rem;
    display: flex;
    align-items: center;
    gap: 0.4375rem;
    padding-inline: 0.75rem;
    border-radius: 1rem;
    box-shadow: 0 1px 4px rgb(0 0 0 / 0.18);
    font-size: 0.8125rem;
    font-variant-numeric: tabular-nums;
  }

  @container (max-width: 34rem) {
    .actions { flex: 1 1 100%; }
    .actions button { flex: 1 1 0; }
    #state { flex-basis: 100%; }
    .figures { flex: 1 1 0; gap: 0.125rem 0.75rem; }
    .figures div:has(#events), #elapsed-name { display: none; }
    .tools { gap: 0; }
    .rows { --sse-size: 0.75rem; --sse-line: 1.125rem; }
    .row::before { inline-size: auto; min-inline-size: 0.5rem; padding-inline-end: 0; content: ""; }
    .row.notice::before, .row.stdout::before { padding-inline-start: 0.25rem; }
  }
  @media (pointer: coarse) {
    button, #search input { min-block-size: 2.75rem; }
    .icon { inline-size: 2.75rem; }
    #end { border-radius: 1.375rem; }
  }
  @media (forced-colors: active) {
    .icon[aria-pressed="true"] { border-color: Highlight; }
    .row.stderr::before { border-inline-start-color: CanvasText; }
  }
`;

let sheet = /** @type {CSSStyleSheet | null} */ (null);

/** One sheet for all consoles of a page. */
export function styles() {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(SHEET);
  }
  return sheet;
}
