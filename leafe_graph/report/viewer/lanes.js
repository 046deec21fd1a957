// Where the branches of a tree are drawn: time runs to the right, and every branch has a lane of its own.

import { endOf, s } from "./dom.js";

// The branch on whose lane the decision point lies: the parent, or its ancestor if the rewind went further back.
function trunkOf(byId, branch) {
  let trunk = byId.get(branch.parent);
  while (trunk && trunk.parent !== null && branch.at <= trunk.at && byId.has(trunk.parent)) trunk = byId.get(trunk.parent);
  return trunk;
}

// Branches `{id, parent, at, length, end}` in the order of their lanes: each below its trunk, later forks nearer to it,
// so that no fork crosses a line.
export function lay(branches) {
  const byId = new Map(branches.map((branch) => [branch.id, branch]));
  const forks = new Map();
  const trunks = new Map();
  for (const branch of branches) {
    const trunk = branch.parent === null ? null : trunkOf(byId, branch) ?? null;
    trunks.set(branch.id, trunk);
    const key = trunk?.id ?? null;
    if (!forks.has(key)) forks.set(key, []);
    forks.get(key).push(branch);
  }
  for (const own of forks.values()) {
    own.sort((a, b) => b.at - a.at || a.id.length - b.id.length || (a.id < b.id ? -1 : 1));
  }
  const order = [];
  const waiting = [...(forks.get(null) ?? [])].reverse();
  while (waiting.length) {
    const branch = waiting.pop();
    order.push(branch);
    waiting.push(...[...(forks.get(branch.id) ?? [])].reverse());
  }
  const lanes = new Map(order.map((branch, lane) => [branch.id, lane]));
  const longest = Math.max(1, ...order.map((branch) => branch.at + branch.length));
  return { byId, order, lanes, trunks, longest };
}

// A tree as large as a word, for the list of tasks.
export function small(branches) {
  const told = branches.map(([id, parent, at, length, end]) => ({ id, parent, at, length, end }));
  const { order, lanes, trunks, longest } = lay(told);
  const width = 132, high = 36, edge = 4;
  const rows = Math.min(order.length, 24);
  const gap = Math.min(7, (high - 2 * edge) / Math.max(1, rows - 1));
  const top = rows === 1 ? high / 2 : (high - gap * (rows - 1)) / 2;
  const x = (t) => edge + ((width - 2 * edge) * t) / longest;
  const y = (lane) => top + gap * lane;
  const thin = rows > 8 ? " thin" : "";
  const parts = [];
  for (const branch of order.slice(0, rows)) {
    const [style] = endOf(branch.end);
    const lane = y(lanes.get(branch.id));
    const trunk = trunks.get(branch.id);
    const from = trunk ? `M${x(branch.at).toFixed(1)} ${y(lanes.get(trunk.id)).toFixed(1)}V${lane.toFixed(1)}` : `M${x(0)} ${lane.toFixed(1)}`;
    const end = x(branch.at + branch.length);
    parts.push(s("path", { class: `line ${style}${thin}`, d: `${from}H${end.toFixed(1)}` }));
    parts.push(s("circle", { class: `dot ${style}`, cx: end.toFixed(1), cy: lane.toFixed(1), r: thin ? 1.3 : 2.4 }));
  }
  return s("svg", { class: "small", viewBox: `0 0 ${width} ${high}`, width, height: high, "aria-hidden": "true" }, parts);
}
