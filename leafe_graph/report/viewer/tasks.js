// The list of tasks: searched, sorted, filtered; each with its small tree.

import { amount, duration, h, many, short, visible } from "./dom.js";
import { small } from "./lanes.js";
import { linkTo } from "./task.js";

const PAGE = 60;

// What is known of a task by its outline.
function known(tree, place) {
  const wins = tree.branches.filter(([, , , , end]) => end === "success");
  const least = wins.length ? Math.min(...wins.map((branch) => branch[5])) : null;
  return {
    place, tree, least,
    text: `${tree.id}\n${tree.text}`.toLowerCase(),
    depth: Math.max(0, ...tree.branches.map((branch) => branch[5])),
    turns: Math.max(0, ...tree.branches.map(([, , at, turns]) => at + turns)),
    errors: tree.branches.some(([, , , , end]) => end.endsWith("_error")),
    diverged: tree.diverged || tree.branches.some(([, , , , end]) => end === "replay_divergence"),
  };
}

const FILTERS = {
  all: ["all", () => true],
  rewound: ["solved after a rewind", (task) => task.least > 0],
  once: ["solved without", (task) => task.least === 0],
  never: ["never solved", (task) => task.least === null],
  errors: ["errors", (task) => task.errors],
  diverged: ["diverged", (task) => task.diverged],
};

const SORTS = {
  telling: ["most telling", (a, b) => (a.tree.rank ?? 0) - (b.tree.rank ?? 0)],
  id: ["task", (a, b) => a.place - b.place],
  rewinds: ["rewinds before success", (a, b) => (b.least ?? -1) - (a.least ?? -1)],
  depth: ["depth", (a, b) => b.depth - a.depth],
  branches: ["branches", (a, b) => b.tree.branches.length - a.tree.branches.length],
  turns: ["longest path", (a, b) => b.turns - a.turns],
  seconds: ["seconds", (a, b) => b.tree.seconds - a.tree.seconds],
  rows: ["training rows", (a, b) => (b.tree.rows ?? 0) - (a.tree.rows ?? 0)],
};

export class TaskList {
  constructor(run, state) {
    this.state = Object.assign(state, { filter: "all", sort: "telling", depth: 0, query: "", ...state });
    this.list = h("ol", { class: "tasks", onkeydown: (event) => this.key(event) });
    this.count = h("p", { class: "dim count", role: "status" });
    this.instruction = h("p", { class: "dim alike", dir: "auto" });
    this.search = h("input", { type: "search", placeholder: "Search tasks", "aria-label": "Search tasks", value: this.state.query,
      oninput: () => this.set("query", this.search.value) });
    this.filters = h("div", { class: "chips", role: "group", "aria-label": "Filter" });
    this.sort = h("select", { "aria-label": "Sort by", onchange: () => this.set("sort", this.sort.value) },
      Object.entries(SORTS).map(([value, [name]]) => h("option", { value, selected: value === this.state.sort }, name)));
    this.depth = h("select", { "aria-label": "Depth", onchange: () => this.set("depth", Number(this.depth.value)) });
    this.more = h("button", { type: "button", class: "more", onclick: () => this.grow() });
    this.element = h("section", { class: "list", "aria-label": "Tasks" },
      h("div", { class: "tools" }, this.search,
        h("label", {}, "sort ", this.sort), h("label", {}, "depth ", this.depth)),
      this.filters, this.count, this.instruction, this.list, this.more);
    new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && this.grow(), { rootMargin: "600px" }).observe(this.more);
    this.update(run);
  }

  update(run) {
    const drawn = this.drawn ?? 0;
    this.run = run;
    this.tasks = run.trees.map(known);
    this.alike = run.trees.length > 1 && run.trees.every((tree) => tree.text === run.trees[0].text);
    this.instruction.textContent = this.alike ? `All of them: ${short(run.trees[0].text, 160)}` : "";
    this.instruction.hidden = !this.alike;
    const deepest = Math.max(0, ...this.tasks.map((task) => task.depth));
    this.depth.replaceChildren(...Array.from({ length: deepest + 1 }, (_, depth) =>
      h("option", { value: depth, selected: depth === this.state.depth }, depth ? `${depth} or more` : "any")));
    this.draw();
    while (this.drawn < Math.min(drawn, this.shown.length)) this.grow();
  }

  set(name, value) {
    this.state[name] = value;
    this.draw();
  }

  draw() {
    const { filter, sort, depth, query } = this.state;
    const asked = query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.tasks.filter((task) => task.depth >= depth && asked.every((word) => task.text.includes(word)));
    this.filters.replaceChildren(...Object.entries(FILTERS).map(([value, [name, fits]]) => {
      const count = found.filter(fits).length;
      return h("button", { type: "button", "aria-pressed": String(value === filter), onclick: () => this.set("filter", value), class: "chip" },
        name, h("span", { class: "n" }, ` ${amount(count)}`));
    }));
    this.shown = found.filter(FILTERS[filter][1]).sort((a, b) => SORTS[sort][1](a, b) || a.place - b.place);
    this.count.textContent = this.run.trees.length
      ? `${amount(this.shown.length)} of ${many(this.tasks.length, "task")}${this.run.left_out ? `; ${amount(this.run.left_out)} more are not in this page` : ""}`
      : "No branches yet.";
    this.drawn = 0;
    this.list.replaceChildren();
    this.grow();
  }

  grow() {
    const next = this.shown.slice(this.drawn, this.drawn + PAGE);
    this.list.append(...next.map((task) => this.row(task)));
    this.drawn += next.length;
    this.more.hidden = this.drawn >= this.shown.length;
    this.more.textContent = `Show more of ${amount(this.shown.length)}`;
  }

  row({ tree, least, errors, diverged, turns }) {
    const state = least === null ? ["bad", "never solved"] : least === 0 ? ["good", "solved"] : ["g1", `after ${many(least, "rewind")}`];
    return h("li", {}, h("a", { class: "row", href: linkTo(tree.id) },
      small(tree.branches),
      h("span", { class: "what" },
        h("span", { class: "id" }, visible(tree.id)),
        !this.alike && h("span", { class: "dim text", dir: "auto" }, short(tree.text, 160))),
      h("span", { class: "facts" },
        h("span", { class: `state ${state[0]}` }, state[1]),
        h("span", { class: "dim" }, [many(tree.branches.length, "branch", "branches"), many(turns, "step"),
          tree.rows ? many(tree.rows, "row") : null, duration(tree.seconds), errors && "errors", diverged && "diverged"].filter(Boolean).join(" · ")))));
  }

  key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const item = event.target.closest("li");
    if (!by || !item) return;
    event.preventDefault();
    (by > 0 ? item.nextElementSibling : item.previousElementSibling)?.querySelector("a").focus();
  }

  // The tasks before and after in the list as it is now filtered and sorted.
  neighbours(place) {
    const at = this.shown.findIndex((task) => task.place === place);
    const id = (i) => this.shown[i]?.tree.id ?? null;
    return at < 0 ? { before: null, after: id(0) } : { before: id(at - 1), after: id(at + 1) };
  }
}
