// Pass@k over k with its bands, told apart by colour, dash and mark, in light and dark.

import { h, percent, s, visible } from "./dom.js";

const LEFT = 34, RIGHT = 12, TOP = 12, BOTTOM = 36;
const FEW = 5;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "5 2 1 2 1 2", "12 4", "4 4", "1 5"];
const LOOKS = 8;
const dash = (look) => DASHES[(look + Math.floor(look / LOOKS)) % LOOKS] || null;

const mark = (look, x, y) => {
  const at = { class: `c${look % LOOKS} dot` };
  switch (look % 4) {
    case 0: return s("circle", { ...at, cx: x, cy: y, r: 3 });
    case 1: return s("rect", { ...at, x: x - 2.8, y: y - 2.8, width: 5.6, height: 5.6 });
    case 2: return s("path", { ...at, d: `M${x} ${y - 4}l4 7h-8z` });
    default: return s("path", { ...at, d: `M${x} ${y - 4}l4 4-4 4-4-4z` });
  }
};

// `list` of `{name, points: [[k, mean, low, high, alike]]}`. Of many, the first few are drawn until others are chosen.
export function curves(list, title, { wide = false, figures = true } = {}) {
  const there = list.map((curve, look) => ({ ...curve, look })).filter((curve) => curve.points.length);
  if (!there.length) return null;
  const on = new Set(there.slice(0, there.length > FEW + 2 ? FEW : there.length));
  const chart = h("div", {}, draw(there, on, title, wide));
  const key = there.map((curve) => {
    const choose = h("button", {
      type: "button", class: "curve-key", "aria-pressed": String(on.has(curve)), onclick: () => {
        if (!on.delete(curve)) on.add(curve);
        choose.setAttribute("aria-pressed", String(on.has(curve)));
        chart.replaceChildren(draw(there, on, title, wide));
      },
    },
    s("svg", { viewBox: "0 0 34 12", width: 34, height: 12, class: "chart", "aria-hidden": "true" },
      s("path", { class: `c${curve.look % LOOKS} line`, d: "M1 6H33", "stroke-dasharray": dash(curve.look) }), mark(curve.look, 17, 6)),
    visible(curve.name));
    return h("li", {}, choose);
  });
  return h(
    "section", { class: wide ? "card whole" : "card" },
    h("h2", {}, title), chart, h("ul", { class: "key-lines" }, key), figures && table(there),
  );
}

function draw(there, on, title, wide) {
  const [WIDTH, HEIGHT] = wide && window.innerWidth > 700 ? [1000, 340] : [400, 260];
  const most = Math.max(...there.flatMap((curve) => curve.points.map(([k]) => k)));
  const top = Math.min(1, Math.ceil(10 * Math.max(0.1, ...there.flatMap((c) => c.points.map((p) => p[3])))) / 10);
  const x = (k) => LEFT + ((WIDTH - LEFT - RIGHT) * Math.log2(k)) / Math.max(1, Math.log2(most));
  const y = (share) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.min(share, top) / top);
  const grid = [];
  const every = top > 0.6 ? 0.2 : top > 0.3 ? 0.1 : 0.05;
  for (let share = 0; share <= top + 1e-9; share += every) {
    grid.push(s("path", { class: "grid", d: `M${LEFT} ${y(share)}H${WIDTH - RIGHT}` }),
      s("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, String(Math.round(100 * share))));
  }
  const doublings = Math.floor(Math.log2(most));
  const step = Math.ceil((doublings + 1) / 8);
  for (let power = 0; power <= doublings; power += step) {
    grid.push(s("path", { class: "grid", d: `M${x(2 ** power)} ${TOP}V${HEIGHT - BOTTOM}` }),
      s("text", { x: x(2 ** power), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, String(2 ** power)));
  }
  const bands = [], lines = [];
  for (const curve of there.filter((each) => on.has(each))) {
    const style = `c${curve.look % LOOKS}`;
    const path = (at) => curve.points.map((point) => `${x(point[0]).toFixed(1)} ${y(point[at]).toFixed(1)}`);
    if (curve.points.length > 1) {
      bands.push(s("path", { class: `${style} band`, d: `M${path(3).join("L")}L${path(2).reverse().join("L")}Z` }));
      lines.push(s("path", { class: `${style} line`, d: `M${path(1).join("L")}`, "stroke-dasharray": dash(curve.look) }));
    } else {
      const [k, , low, high] = curve.points[0];
      lines.push(s("path", { class: `${style} line`, d: `M${x(k)} ${y(low)}V${y(high)}` }));
    }
    for (const [k, mean] of curve.points) if (Math.log2(k) % 1 === 0 || k === most) lines.push(mark(curve.look, x(k), y(mean)));
  }
  return s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} in percent over k; a table says the same` },
    grid, bands, lines, s("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "Pass@k in % over k"));
}

// The same in figures: at doublings, and at the last k of all.
function table(shown) {
  const last = Math.min(...shown.map((curve) => curve.points.at(-1)[0]));
  const there = new Set(shown[0].points.map(([k]) => k).filter((k) => k <= last && (Math.log2(k) % 1 === 0 || k === last)));
  const ks = [...there].filter((k) => shown.every((curve) => curve.points.some((point) => point[0] === k)));
  const few = ks.length > 5 ? ks.filter((_, i) => i % Math.ceil(ks.length / 5) === 0 || i === ks.length - 1) : ks;
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Pass@k in figures" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Pass@k, % [95%]"), few.map((k) => h("th", { scope: "col" }, `@${k}`)))),
    h("tbody", {}, shown.map((curve) => h("tr", {},
      h("th", { scope: "row" }, visible(curve.name)),
      few.map((k) => {
        const [, mean, low, high, alike] = curve.points.find((point) => point[0] === k);
        return h("td", {}, h("b", {}, percent(mean)), h("span", { class: "dim" }, ` [${percent(low)}, ${percent(high)}]${alike ? "*" : ""}`));
      }))))));
}
