// The page: which view is shown, its address, and the keys that work everywhere.

import { h, many, s, visible } from "./dom.js";
import { cards, facts, methods, rounds } from "./overview.js";
import { follow, overviewData } from "./source.js";
import { linkTo, TaskView } from "./task.js";
import { TaskList } from "./tasks.js";

const app = document.getElementById("app");
const state = {};
let run, list, home, view = null;
let left = 0; // how far the list was scrolled when a task was opened

const KEYS = [
  ["← →", "the turn before and after, in the tree"], ["↑ ↓", "the branch above and below"], ["Home End", "start and end of the branch"],
  ["r", "the branch's rewind"], ["j k", "the next and previous turn, from anywhere"], ["[ ]", "the previous and next task"],
  ["/", "search the tasks"], ["Esc", "back to all tasks"], ["?", "these keys"],
];
const help = h("dialog", { "aria-labelledby": "keys-title" }, h("h2", { id: "keys-title" }, "Keys"),
  h("dl", { class: "keys-list" }, KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, what)))),
  h("form", { method: "dialog" }, h("button", {}, "Close")));
const told = h("span", { class: "live", role: "status" });

function glyph() {
  return s("svg", { viewBox: "0 0 22 18", width: 22, height: 18, class: "glyph", "aria-hidden": "true" },
    s("path", { class: "line off", d: "M2 4H20" }), s("path", { class: "line good", d: "M8 4V10q0 3 3 3H20" }),
    s("circle", { class: "dot off", cx: 20, cy: 4, r: 1.8 }), s("circle", { class: "dot good", cx: 20, cy: 13, r: 1.8 }));
}

function banner() {
  return h("header", { class: "top" },
    h("a", { href: "#", class: "brand" }, glyph(), "leafe"),
    h("span", { class: "dim folder" }, view ? visible(run.title) : visible(run.folder)),
    h("span", { class: "grow" }), told,
    h("button", { type: "button", class: "quiet", onclick: () => help.showModal() }, "Keys"));
}

function overview() {
  return h("aside", { "aria-label": "Overview" }, h("h1", {}, visible(run.title)), facts(run),
    run.trees && h("button", { type: "button", class: "jump", onclick: () => list.element.scrollIntoView() }, `${many(run.trees.length, "task")} ↓`),
    run.rounds && rounds(run), run.methods && methods(run), cards(run));
}

function draw() {
  list = run.trees ? new TaskList(run, state) : null;
  home = h("main", { class: run.trees ? "home" : "home wholes", tabindex: "-1" }, overview(), list?.element);
}

function parsed() {
  const [, kind, task, branch, t] = location.hash.slice(1).split("/");
  if (kind !== "task" || !task) return null;
  try {
    return { task: decodeURIComponent(task), branch: branch && decodeURIComponent(branch), t: t === undefined ? undefined : Number(t) };
  } catch {
    return null;
  }
}

async function route() {
  const to = parsed();
  const place = to && run.trees ? run.trees.findIndex((tree) => tree.id === to.task) : -1;
  if (place < 0) {
    const from = view;
    view = null;
    if (home.isConnected) return;
    app.replaceChildren(banner(), home, help);
    document.title = `${visible(run.title)} · leafe`;
    window.scrollTo(0, left);
    if (from) list?.list.querySelector(`a[href="${CSS.escape ? linkTo(from.outline.id) : ""}"]`)?.focus({ preventScroll: true });
    if (to) told.textContent = `There is no task ${visible(to.task)} in this page.`;
    return;
  }
  if (view?.outline.id === to.task) {
    if (view.at && to.branch !== undefined && (view.at[0] !== to.branch || view.at[1] !== to.t)) view.choose(...view.start(to.branch, to.t));
    return;
  }
  if (home.isConnected) left = window.scrollY;
  const opened = new TaskView(run, place, list.neighbours(place), (branch, t) => {
    history.replaceState(null, "", linkTo(to.task, branch, t));
  });
  view = opened;
  app.replaceChildren(banner(), opened.element, help);
  document.title = `${visible(to.task)} · ${visible(run.title)}`;
  window.scrollTo(0, 0);
  try {
    await opened.open(to.branch, to.t);
  } catch (error) {
    opened.element.replaceChildren(h("p", { class: "bad", role: "alert" }, visible(String(error.message))));
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && typing) return event.target.blur();
  if (typing) return;
  const { before, after } = view?.neighbours ?? {};
  const act = {
    "?": () => help.showModal(),
    "/": () => { location.hash = ""; requestAnimationFrame(() => list?.search.focus()); },
    Escape: () => { location.hash = ""; },
    j: () => view?.step(1),
    k: () => view?.step(-1),
    "[": () => { if (before) location.hash = linkTo(before); },
    "]": () => { if (after) location.hash = linkTo(after); },
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// A run that is still played: what is new is drawn where it belongs, and what is read stays where it is.
async function grown() {
  run = await overviewData();
  const aside = home.querySelector("aside"), now = overview();
  aside.querySelectorAll("details").forEach((box, i) => { now.querySelectorAll("details")[i].open = box.open; });
  aside.replaceWith(now);
  list?.update(run);
  if (!view?.path) return;
  const outline = run.trees.find((tree) => tree.id === view.outline.id);
  if (!outline || outline.branches.length === view.outline.branches.length) return;
  const held = view.drawn.grid === document.activeElement, top = view.path.scrollTop, at = window.scrollY;
  Object.assign(view, { run, outline, place: run.trees.indexOf(outline), neighbours: list.neighbours(run.trees.indexOf(outline)) });
  await view.open(...view.at, held);
  view.path.scrollTop = top;
  window.scrollTo(0, at);
}

// One redrawing at a time, and not more than one a second: a run may end many branches in that.
let drawing = false, waiting = false;
async function news() {
  waiting = drawing;
  if (drawing) return;
  drawing = true;
  try {
    await grown();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  } catch (error) {
    told.textContent = visible(String(error.message));
  } finally {
    drawing = false;
  }
  if (waiting) news();
}

async function start() {
  try {
    run = await overviewData();
  } catch (error) {
    app.append(h("p", { class: "bad", role: "alert" }, visible(String(error.message))));
    return;
  }
  draw();
  await route();
  window.addEventListener("hashchange", route);
  follow(run.version, news, (words) => { told.textContent = words; });
  document.documentElement.dataset.ready = "";
  performance.mark("leafe-drawn");
}

start();
