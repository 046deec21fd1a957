// Bars of parts of a whole: ends of branches, tasks by their rewinds, what was spent.

import { amount, duration, h, many, percent } from "./dom.js";

// One bar of `[style, share]`; the words beside it say the same.
function bar(parts, whole) {
  const total = whole || parts.reduce((sum, [, value]) => sum + value, 0) || 1;
  const shown = h("span", { class: "bar", "aria-hidden": "true" });
  for (const [style, value] of parts) {
    if (!value) continue;
    const part = h("span", { class: `part ${style}` });
    part.style.width = `${Math.max(0.5, (100 * value) / total)}%`;
    shown.append(part);
  }
  return shown;
}

export function stacked(title, parts, note) {
  const total = parts.reduce((sum, [, , value]) => sum + value, 0);
  return h(
    "section", { class: "card" },
    h("h2", {}, title),
    bar(parts.map(([style, , value]) => [style, value])),
    h(
      "ul", { class: "legend" },
      parts.filter(([, , value]) => value).map(([style, name, value]) =>
        h("li", {},
          h("span", { class: `key ${style}`, "aria-hidden": "true" }),
          h("span", { class: "grow" }, name),
          h("b", {}, amount(value)),
          h("span", { class: "dim share" }, `${percent(value / total)}%`))),
    ),
    note && h("p", { class: "dim" }, note),
  );
}

const KINDS = {
  env_steps: "environment steps",
  replayed_steps: "replayed steps",
  model_calls: "model calls",
  prompt_tokens: "prompt tokens",
  completion_tokens: "completion tokens",
  reflections: "reflections",
  seconds: "seconds",
};

export function spent(cost) {
  const rows = Object.entries(cost).map(([kind, told]) => {
    const used = told.roots + told.forks + told.again;
    if (!used && told.limit === null) return null;
    const of = told.limit ? ` of ${amount(told.limit)}` : "";
    const words = kind === "seconds" ? duration(used) : amount(used) + of;
    return h("li", {},
      h("span", { class: "grow" }, KINDS[kind] ?? kind),
      h("b", {}, words),
      (told.limit || used !== told.roots) && bar([["roots", told.roots], ["forks", told.forks], ["again", told.again]], told.limit ? Math.max(told.limit, used) : used));
  });
  const parts = [["roots", "first attempts"], ["forks", "after a rewind"], ["again", "failed and played again"]];
  const there = parts.filter(([part]) => Object.values(cost).some((told) => told[part]));
  return h(
    "section", { class: "card" },
    h("h2", {}, "Spent"),
    h("ul", { class: "spent" }, rows),
    h("p", { class: "keys dim" },
      there.map(([part, name]) => h("span", {}, h("span", { class: `key ${part}`, "aria-hidden": "true" }), ` ${name}`))),
    h("p", { class: "dim" }, "A bar's whole length is the run's limit, or all that was spent where there is none. "
      + "Seconds are summed over branches, which run side by side."),
  );
}

export function depths(tasks) {
  const [once, first, second, ...deeper] = [...tasks.depths, 0, 0, 0];
  const waiting = Math.max(0, tasks.planned - tasks.played);
  return stacked(`Tasks, by the fewest rewinds before a success`, [
    ["good", "solved without a rewind", once], ["g1", "after 1 rewind", first], ["g2", "after 2 rewinds", second],
    ["g3", "after 3 or more", deeper.reduce((sum, count) => sum + count, 0)], ["bad", "never solved", tasks.played - tasks.solved],
  ], `${amount(tasks.solved)} of ${many(tasks.played, "task")} solved${waiting ? `; ${amount(waiting)} more were planned and not begun` : ""}.`);
}
