// The run at a glance; rounds or methods side by side where it is a whole run or bench.

import { depths, spent, stacked } from "./bars.js";
import { curves } from "./curves.js";
import { amount, duration, endOf, ENDS, h, percent, visible } from "./dom.js";
import { words } from "./words.js";

export function facts(run) {
  return h("dl", { class: "facts-list" }, run.facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, visible(value)))));
}

export function cards(run) {
  const ends = run.ends && Object.keys(ENDS).concat(Object.keys(run.ends).filter((end) => !(end in ENDS)))
    .filter((end) => run.ends[end]).map((end) => [`${endOf(end)[0]} e-${end}`, `${endOf(end)[1]} ${endOf(end)[2]}`, run.ends[end]]);
  return [
    run.tasks && depths(run.tasks),
    ends?.length ? stacked("Ends of branches", ends, `${amount(run.branches.all)} branches, ${amount(run.branches.forked)} of them forked.`) : null,
    run.errors?.length ? h("section", { class: "card" }, h("h2", {}, "Errors"), h("ul", {}, run.errors.map((error) => h("li", { class: "error" }, visible(error))))) : null,
    curves(run.curves ?? [], run.rounds ? "Held-out Pass@k by round" : run.methods ? "Pass@k by method" : "Evaluations",
      { wide: !run.trees, figures: !!run.trees }),
    run.notes?.length ? h("section", { class: "card notes" }, h("h2", {}, "To know"), h("ul", {}, run.notes.map((note) => h("li", {}, visible(note))))) : null,
    run.cost && spent(run.cost),
    settings(run),
  ];
}

function settings(run) {
  const rows = [];
  const walk = (value, name) => {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) for (const [key, held] of Object.entries(value)) walk(held, name ? `${name}.${key}` : key);
    else if (value !== null && value !== undefined) rows.push([name, typeof value === "string" ? value : JSON.stringify(value)]);
  };
  walk(run.settings ?? {}, "");
  if (!rows.length) return null;
  return h("section", { class: "card" }, h("details", {}, h("summary", {}, h("h2", {}, "Settings")),
    h("dl", { class: "settings" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, visible(value.length > 400 ? `${value.slice(0, 400)}…` : value))))),
    Object.entries(run.texts ?? {}).map(([name, text]) => h("div", {}, h("h3", {}, `text: ${name}`), words(text, `text ${name}`)))));
}

const interval = (told) => (told ? [h("b", {}, percent(told[0])), h("span", { class: "dim" }, ` [${percent(told[1])}, ${percent(told[2])}]${told[3] ? "*" : ""}`)] : "");
const signed = (share) => `${share >= 0 ? "+" : "−"}${(100 * Math.abs(share)).toFixed(1)}`;
const against = (told) => (told ? h("span", { class: told[1] > 0 ? "up" : told[2] < 0 ? "down" : "dim" }, `${signed(told[0])} [${signed(told[1])}, ${signed(told[2])}]`) : "");

function wide(name, heads, rows) {
  return h("section", { class: "card whole" }, h("h2", {}, name),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": name }, h("table", {},
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", {}, cell))))))));
}

export function rounds(run) {
  const ks = run.rounds.find((round) => round.points.length)?.points.map(([k]) => k) ?? [];
  return wide("Rounds", ["round", ...ks.map((k) => `Pass@${k}, %`), "gain, points", "rows", "steps", "time"], run.rounds.map((round) => [
    round.href ? h("a", { href: round.href }, `round ${round.round}: its trees`) : `round ${round.round}`,
    ...ks.map((k) => interval(round.points.find((point) => point[0] === k)?.slice(1))),
    against(round.gain),
    Object.entries(round.rows ?? {}).map(([kind, count], i) => `${i ? ", " : ""}${amount(count)} ${kind}`),
    round.spent?.env_steps ? amount(round.spent.env_steps) : "",
    round.seconds ? duration(round.seconds) : "",
  ]));
}

export function methods(run) {
  const ks = run.ks;
  return wide("Methods", ["method", ...ks.map((k) => `Pass@${k}, %`), ...ks.map((k) => `@${k} against ${run.baseline}`), ...run.costs.map((cost) => run.cost_names[cost])],
    run.methods.map((method) => [
      `${visible(method.name)}${method.seeds > 1 ? ` (${method.seeds} seeds)` : ""}`,
      ...ks.map((k) => interval(method.pass_at[k])),
      ...ks.map((k) => against(method.against[k])),
      ...run.costs.map((cost) => (cost in method.cost ? amount(Math.round(method.cost[cost])) : "")),
    ]));
}
