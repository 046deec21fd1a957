// Elements, made without ever reading a text as markup.

const SVG = "http://www.w3.org/2000/svg";
const FLAGS = new Set(["hidden", "open", "disabled", "checked", "selected"]);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (FLAGS.has(name)) element[name] = true;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });

export const amount = (value) => number.format(value);
export const figure = (value) => exact.format(value);
export const percent = (share) => (100 * share).toFixed(1);

export const many = (count, one, more = `${one}s`) => `${amount(count)} ${count === 1 ? one : more}`;

export function duration(seconds) {
  if (seconds > 0 && seconds < 0.1) return `${amount(1000 * seconds)} ms`;
  if (seconds < 100) return `${amount(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${amount(minutes / 60)} h`;
}

// A moment, given in seconds since 1970, by the reader's clock: 2026-11-29 06:16:21.
export const moment = (seconds) => new Date(1000 * seconds).toLocaleString("sv");

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// The first characters of a text in one line, for where a line has room for no more; the whole text stands elsewhere.
export function short(text, length) {
  const head = text.slice(0, 4 * length).replace(/\s+/g, " ").trim();
  return visible(head.length > length ? `${head.slice(0, length - 1).trimEnd()}…` : head);
}

// What a terminal would obey, and what turns a text's direction, is spelt out: nothing that was said is invisible.
const OBEYED = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]/gu;

export function visible(text) {
  return text.replace(OBEYED, (found) => {
    const code = found.codePointAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

// How a branch ended: its style, its mark and its name.
export const ENDS = {
  success: ["good", "✓", "success"],
  failure: ["bad", "✕", "failure"],
  rewound: ["back", "↶", "rewound in the middle"],
  max_turns: ["bad", "■", "turn limit"],
  truncated: ["bad", "■", "truncated by the environment"],
  budget: ["off", "■", "budget spent"],
  env_error: ["off", "!", "environment error"],
  model_error: ["off", "!", "model error"],
  replay_divergence: ["off", "!", "replay diverged"],
};

export const endOf = (end) => ENDS[end] ?? ["off", "?", end];

export function badge(end) {
  const [style, mark, name] = endOf(end);
  return h("span", { class: `end ${style}` }, h("span", { "aria-hidden": "true" }, mark), ` ${name}`);
}
