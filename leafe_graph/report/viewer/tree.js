// A tree to walk: branches are rows and turns are cells of a grid, for keys and screen readers as for the eye.

import { clamp, endOf, h, many, s, short, visible } from "./dom.js";
import { lay } from "./lanes.js";

const LEFT = 18, TOP = 26;

// The branch that played turn `t` of a branch's path; the end of a path belongs to the branch itself.
export function owner(byId, branch, t) {
  while (t < branch.at && branch.parent !== null && byId.has(branch.parent)) branch = byId.get(branch.parent);
  return branch;
}

export const last = (branch) => branch.at + branch.turns.length;

export class Tree {
  // `chosen(branch id, t)` is called where somebody walks to another turn; `show` marks it.
  constructor(tree, chosen) {
    this.chosen = chosen;
    this.at = null;
    this.plan = lay(tree.branches.map((branch) => ({ ...branch, length: branch.turns.length })));
    this.roomy = this.plan.order.length <= 12;
    this.status = h("p", { class: "status", "aria-live": "polite" });
    this.grid = h("div", {
      class: "canvas", role: "grid", tabindex: "0", "aria-label": `Experience tree of ${many(tree.branches.length, "branch", "branches")}; arrow keys walk`,
      "aria-rowcount": this.plan.order.length, onkeydown: (event) => this.key(event), onclick: (event) => this.click(event),
    });
    this.element = h("div", { class: "tree" }, this.grid, this.status);
    new ResizeObserver(() => this.draw()).observe(this.grid);
  }

  draw() {
    const wide = this.grid.clientWidth;
    if (!wide || wide === this.wide) return;
    this.wide = wide;
    const { order, lanes, trunks, longest } = this.plan;
    const lane = this.roomy ? 50 : 22;
    const right = this.roomy ? 112 : 40;
    const step = clamp((wide - LEFT - right) / longest, 11, this.roomy ? 110 : 44);
    const width = Math.max(wide, LEFT + step * longest + right);
    const height = TOP + lane * order.length + 12;
    this.x = (t) => Math.round(10 * (LEFT + step * t)) / 10;
    this.y = (id) => TOP + lane * lanes.get(id) + (this.roomy ? 28 : 14);
    const radius = clamp(step / 3.4, 2.4, this.roomy ? 5 : 4);
    this.bend = Math.min(7, 0.42 * step);
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((n) => n * step >= 26) ?? 1000;
    const ticks = [];
    for (let t = 0; t <= longest; t += every) {
      ticks.push(s("text", { class: "tick", x: this.x(t), y: 14, "text-anchor": "middle" }, String(t)),
        s("path", { class: "grid", d: `M${this.x(t)} 20V${height}` }));
    }
    this.lines = new Map();
    const back = [], lines = [], rows = [];
    for (const branch of order) {
      const [style, mark, name] = endOf(branch.end);
      const y = this.y(branch.id), trunk = trunks.get(branch.id);
      const end = this.x(branch.at + branch.length);
      let from = `M${this.x(0)} ${y}`;
      if (trunk) {
        from = `M${this.x(branch.at)} ${this.y(trunk.id)}V${y - this.bend}q0 ${this.bend} ${this.bend} ${this.bend}`;
        if (this.roomy) back.push(this.arc(branch, trunk));
      }
      const line = s("path", { class: `line ${style}`, d: `${from}H${Math.max(end, this.x(branch.at) + this.bend)}` });
      lines.push(line);
      this.lines.set(branch.id, [line]);
      const label = `Branch ${branch.id}${branch.parent === null ? "" : `, from branch ${branch.parent} at step ${branch.at}`}, ${name}`;
      const row = s("g", { role: "row", class: "lane", "aria-label": visible(label), "aria-rowindex": lanes.get(branch.id) + 1 },
        branch.turns.map((turn, i) => this.node(branch, branch.at + i, style, radius,
          `step ${branch.at + i}: ${short(turn.action, 80)}`, turn.valid === false)),
        this.node(branch, branch.at + branch.length, style, this.roomy ? 8 : 6, name, false, mark));
      row.append(s("text", { class: "name", "aria-hidden": "true", x: end + (this.roomy ? 15 : 11), y: y + 4 },
        short(branch.id, 12) + (this.roomy && branch.end !== "rewound" ? ` ${short(name, 14)}` : "")));
      if (this.roomy && step >= 46) {
        branch.turns.forEach((turn, i) => row.append(s("text", { class: "did", "aria-hidden": "true",
          x: this.x(branch.at + i) - radius + (i || !trunk ? 0 : this.bend), y: y + 18 }, short(turn.action || "(nothing)", Math.floor(step / 6.8)))));
      }
      if (this.roomy && branch.experience) {
        const room = Math.floor((width - this.x(branch.at) - 20) / 6.8);
        row.append(s("text", { class: "told", "aria-hidden": "true", x: this.x(branch.at) + 10, y: y - 10 }, short(branch.experience, Math.max(8, room))));
      }
      rows.push(row);
      this.lines.get(branch.id).push(row);
    }
    this.ring = s("circle", { class: "ring", r: radius + 5, hidden: true });
    this.bow = s("path", { class: "rewind strong" });
    this.svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "presentation" },
      ticks, back, lines, this.bow, this.ring, rows);
    this.grid.replaceChildren(this.svg);
    if (this.at) this.show(...this.at);
  }

  // The rewind: from the end of the branch that was reflected upon back to the decision point.
  arc(branch, trunk) {
    return s("path", { class: "rewind", d: this.bowTo(branch, trunk) });
  }

  bowTo(branch, trunk) {
    const parent = this.plan.byId.get(branch.parent);
    if (!parent) return "";
    const from = [this.x(parent.at + parent.length), this.y(parent.id) - 9];
    const to = [this.x(branch.at), this.y(trunk.id) - 7];
    const rise = Math.min(from[1], to[1]) - (this.roomy ? 18 : 12);
    return `M${from.join(" ")}C${from[0]} ${rise} ${to[0]} ${rise} ${to.join(" ")}m-3.5 -6l3.5 6 3.5 -6`;
  }

  node(branch, t, style, radius, label, hollow, mark) {
    const lane = this.plan.lanes.get(branch.id);
    const bent = t === branch.at && branch.parent !== null;
    const at = { cx: this.x(t) + (bent ? this.bend : 0), cy: this.y(branch.id) };
    return s("g", { role: "gridcell", id: `n${lane}-${t}`, "aria-label": visible(label), "data-branch": branch.id, "data-t": t, class: "cell" },
      s("circle", { class: "hit", ...at, r: Math.max(radius, 9) }),
      s("circle", { class: `dot ${style}${hollow ? " hollow" : ""}${mark ? " last" : ""}`, ...at, r: radius }),
      mark && this.roomy && s("text", { class: "mark", x: at.cx, y: at.cy + 4, "text-anchor": "middle" }, mark));
  }

  // Marks a turn, the path to it, and the rewind from which its branch came.
  show(id, t) {
    this.at = [id, t];
    const { byId, lanes, trunks } = this.plan;
    const branch = byId.get(id);
    if (!branch || !this.svg) return;
    const walked = owner(byId, branch, t);
    const cell = document.getElementById(`n${lanes.get(walked.id)}-${t}`);
    const on = new Set([branch.id]);
    for (let each = branch; each && each.parent !== null; each = byId.get(each.parent)) on.add(trunks.get(each.id)?.id ?? each.id);
    for (const [name, parts] of this.lines) for (const each of parts) each.classList.toggle("on", on.has(name));
    const dot = cell?.querySelector(".dot");
    if (dot) {
      for (const name of ["cx", "cy"]) this.ring.setAttribute(name, dot.getAttribute(name));
      this.ring.setAttribute("r", Number(dot.getAttribute("r")) + 4);
      this.grid.setAttribute("aria-activedescendant", cell.id);
      this.reveal(Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy")));
    }
    this.ring.toggleAttribute("hidden", !dot);
    for (const chosen of this.svg.querySelectorAll("[aria-selected]")) chosen.removeAttribute("aria-selected");
    cell?.setAttribute("aria-selected", "true");
    const trunk = trunks.get(id);
    this.bow.setAttribute("d", trunk ? this.bowTo(branch, trunk) : "");
    const turn = walked.turns[t - walked.at];
    const [, mark, name] = endOf(branch.end);
    this.status.replaceChildren(
      h("b", {}, `branch ${visible(branch.id)}`), ` step ${t} `,
      turn ? h("span", {}, short(turn.action || "(nothing)", 90), turn.feedback ? h("span", { class: "dim" }, ` → ${short(turn.feedback, 110)}`) : null)
        : h("span", {}, `end ${mark} ${name}`));
  }

  // Scrolls the tree alone, never the page.
  reveal(x, y) {
    const { clientWidth, clientHeight, scrollLeft, scrollTop } = this.grid;
    if (x < scrollLeft + 30 || x > scrollLeft + clientWidth - 60) this.grid.scrollLeft = x - clientWidth / 2;
    if (y < scrollTop + 40 || y > scrollTop + clientHeight - 30) this.grid.scrollTop = y - clientHeight / 2;
  }

  click(event) {
    const cell = event.target.closest("[data-branch]");
    if (cell) this.chosen(cell.dataset.branch, Number(cell.dataset.t));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.at) return;
    const [id, t] = this.at;
    const { byId, order, lanes } = this.plan;
    const branch = byId.get(id), end = branch.at + branch.length, lane = lanes.get(id);
    const to = {
      ArrowRight: () => [id, Math.min(end, t + 1)],
      ArrowLeft: () => [id, Math.max(0, t - 1)],
      ArrowDown: () => this.beside(order[lane + 1], t),
      ArrowUp: () => this.beside(order[lane - 1], t),
      Home: () => [id, 0],
      End: () => [id, end],
      r: () => [id, branch.at],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const place = to();
    if (place) this.chosen(...place);
  }

  // The turn of another lane that is nearest to this one.
  beside(branch, t) {
    return branch ? [branch.id, clamp(t, branch.at, branch.at + branch.length)] : null;
  }
}
