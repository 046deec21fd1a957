// One task: its tree to walk, and the path of the chosen branch beside it.

import { h, short, visible } from "./dom.js";
import { treeData } from "./source.js";
import { last, Tree } from "./tree.js";
import { transcript } from "./turns.js";
import { words } from "./words.js";

export const linkTo = (task, branch, t) => "#" + ["/task", task, branch, t].filter((part) => part !== undefined).map((part, i) => (i ? encodeURIComponent(part) : part)).join("/");

// `moved(branch, t)` is called after each step; `neighbours` are the tasks before and after in the list.
export class TaskView {
  constructor(run, place, neighbours, moved) {
    this.run = run;
    this.place = place;
    this.neighbours = neighbours;
    this.moved = moved;
    this.outline = run.trees[place];
    this.element = h("main", { class: "task", tabindex: "-1" }, h("p", { class: "dim wait" }, "reading the tree …"));
  }

  async open(branch, t, focus = true) {
    this.tree = await treeData(this.place);
    this.byId = new Map(this.tree.branches.map((each) => [each.id, each]));
    const { task } = this.tree;
    this.told = { run: this.run, tree: this.tree, byId: this.byId, link: (id, at) => linkTo(task.id, id, at) };
    this.drawn = new Tree(this.tree, (id, at) => this.choose(id, at));
    this.path = h("section", { class: "path", "aria-label": "Turns of the branch" });
    const { before, after } = this.neighbours;
    this.element.replaceChildren(
      h("nav", { class: "crumbs", "aria-label": "Tasks" },
        h("a", { href: "#" }, "All tasks"), h("span", { class: "grow" }),
        before !== null && h("a", { href: linkTo(before) }, "‹ previous"), after !== null && h("a", { href: linkTo(after) }, "next ›")),
      h("header", { class: "task-head" },
        h("h1", {}, visible(task.id)),
        task.instruction && (task.instruction.length > 300
          ? h("details", {}, h("summary", {}, short(task.instruction, 160)), words(task.instruction, "instruction"))
          : h("p", { class: "instruction", dir: "auto" }, visible(task.instruction)))),
      h("div", { class: "split" }, h("div", { class: "side-tree" }, this.drawn.element), this.path));
    this.choose(...this.start(branch, t), true);
    if (focus) this.drawn.grid.focus({ preventScroll: true });
  }

  // Where nothing is asked for: at the first rewind that led to a success, else at the first branch's end.
  start(branch, t) {
    const { branches } = this.tree;
    const asked = this.byId.get(branch);
    const told = asked ?? branches.find((each) => each.parent !== null && each.end === "success")
      ?? branches.find((each) => each.end === "success") ?? branches[0];
    const first = told.parent === null ? 0 : told.at;
    return [told.id, Number.isInteger(t) ? Math.max(0, Math.min(last(told), t)) : first];
  }

  choose(id, t, first = false) {
    this.at = [id, t];
    this.drawn.show(id, t);
    const old = this.path.scrollTop;
    const reading = this.path.contains(document.activeElement);
    this.path.replaceChildren(
      h("h2", {}, `Branch ${visible(id)}`, this.lineage(id)),
      transcript(this.told, this.byId.get(id), t, (branch, at) => this.choose(branch, at)));
    this.path.scrollTop = old;
    if (reading) this.path.querySelector(`#turn-${t}`)?.focus({ preventScroll: true });
    if (!first || t > 0) this.reveal(t, first);
    this.moved(id, t);
  }

  lineage(id) {
    const branch = this.byId.get(id);
    if (branch.parent === null) return h("span", { class: "dim" }, " a first attempt");
    return h("span", { class: "dim" }, " from ",
      h("a", { href: linkTo(this.tree.task.id, branch.parent, branch.at) }, `branch ${visible(branch.parent)}`), ` at step ${branch.at}`);
  }

  // The open turn comes into sight: in its column where that scrolls by itself, else below the tree, which stays.
  reveal(t, first) {
    const item = this.path.querySelector(`#turn-${t}`)?.parentElement;
    if (!item) return;
    const card = item.previousElementSibling?.classList.contains("rewind-card") ? item.previousElementSibling : item;
    const top = card.getBoundingClientRect().top;
    if (getComputedStyle(this.path).overflowY === "auto") this.path.scrollTop += top - this.path.getBoundingClientRect().top - 44;
    else if (!first) window.scrollBy(0, top - this.drawn.element.getBoundingClientRect().height - 12);
  }

  step(by) {
    const branch = this.byId.get(this.at[0]);
    this.choose(branch.id, Math.max(0, Math.min(last(branch), this.at[1] + by)));
  }
}
