// The path of a branch, turn by turn: what was seen, said, done and answered; and its rewind.

import { amount, badge, duration, endOf, figure, h, many, moment, short, visible } from "./dom.js";
import { last, owner } from "./tree.js";
import { calls, json, part, prompt, words } from "./words.js";

const WHY = {
  leaked: "left out: text of an experience is in it (leak)",
  duplicates: "left out: the same row is there already (duplicate)",
  invalid: "left out: the environment did not take the action (invalid)",
  empty: "left out: the model said nothing",
  unreadable: "left out: no row can hold it",
  other_nodes: "left out: another agent decided",
  over: "left out: the task has as many as it may",
  unfit: "left out: it says itself twice, or speaks of what the policy does not know (unfit)",
};

// All turns from the task's start to a branch's end, each with the branch that played it.
export function pathOf(byId, branch) {
  const path = [];
  for (let t = 0; t < last(branch); t++) {
    const by = owner(byId, branch, t);
    path.push({ by, turn: by.turns[t - by.at] });
  }
  return path;
}

// `told`: {run, tree, byId, link}; `at` is the turn that is open.
export function transcript(told, branch, at, choose) {
  const path = pathOf(told.byId, branch);
  const turns = path.map(({ turn }) => turn);
  const folded = branch.parent !== null && branch.at > 1 && at >= branch.at ? branch.at : 0;
  const items = path.slice(folded).map(({ by, turn }, i) => {
    const t = folded + i;
    const item = one(told, branch, turns, by, turn, t, t === at, choose);
    return t === branch.at && branch.parent !== null ? [rewind(told, branch, turns), item] : item;
  });
  if (branch.parent !== null && branch.at >= path.length) items.push(rewind(told, branch, turns));
  return h("ol", { class: "turns" }, folded > 0 && before(path.slice(0, folded), () => choose(branch.id, folded - 1)), items, end(told, branch, path.length, at, choose));
}

// What earlier branches played, in one line until somebody walks there.
function before(path, open) {
  const names = [...new Set(path.map(({ by }) => visible(by.id)))];
  return h("li", { class: "turn before" }, h("button", { type: "button", class: "head", onclick: open },
    h("span", { class: "step" }, "0 …"), h("span", {}, `${many(path.length, "turn")} before the rewind`),
    h("span", { class: "dim back-said" }, `played by branch ${names.join(", ")}`)));
}

function one(told, branch, turns, by, turn, t, open, choose) {
  const rows = by === branch || branch.rows.some((row) => row[1] === t) ? branch.rows.filter((row) => row[1] === t) : [];
  const head = h("button", {
    type: "button", class: "head", id: `turn-${t}`, "aria-expanded": String(open), onclick: () => choose(branch.id, t),
  },
  h("span", { class: "step" }, String(t)),
  h("span", { class: "act" }, short(turn.action || "(nothing)", 70)),
  h("span", { class: "dim back-said" }, short(turn.feedback ?? "", 90)),
  turn.reward ? h("span", { class: "reward" }, `${turn.reward > 0 ? "+" : ""}${figure(turn.reward)}`) : null,
  turn.valid === false ? h("span", { class: "flag" }, "no effect") : null);
  return h("li", { class: `turn${by === branch ? "" : " before"}${open ? " open" : ""}` }, head, open && body(told, branch, turns, by, turn, t, rows));
}

function body(told, branch, turns, by, turn, t, rows) {
  const shown = by.experience !== null && t >= by.at
    && (told.run.experience_turns === null || told.run.experience_turns === undefined || t - by.at < told.run.experience_turns);
  const facts = [
    by !== branch && `played by branch ${visible(by.id)}`,
    turn.node && `agent ${visible(turn.node)}`,
    `reward ${figure(turn.reward)}`,
    turn.valid === null ? null : turn.valid ? "valid" : "not understood, or without effect",
    turn.tokens !== undefined && many(turn.tokens, "token"),
    turn.prompt_tokens !== undefined && `${many(turn.prompt_tokens, "token")} of prompt`,
    turn.time && [moment(turn.time[0]), `${duration(turn.time[1])} of the model`, turn.time[2] === null ? null : `${duration(turn.time[2])} of the environment`].filter(Boolean).join(" · "),
    !turn.time && by.turns.length && by.cost.seconds > 0 && `${duration(by.cost.seconds / by.turns.length)} a turn in this branch`,
  ].filter(Boolean);
  const acted = !turn.request && (turn.content.trim() !== turn.action.trim() || turn.tool_calls);
  return h("div", { class: "body" },
    h("p", { class: "facts dim" }, facts.join(" · "), " · ", h("a", { href: told.link(branch.id, t) }, "link to this turn")),
    (turn.replies ?? []).map((reply) => part("A person was asked", words(json(reply.asked), "question"), words(json(reply.answer), "answer"))),
    part("Observation", words(turn.observation, "observation")),
    turn.thoughts && part("Thoughts", words(turn.thoughts, "thoughts")),
    (turn.content || !turn.tool_calls) && part("The model said", words(turn.content, "the model's words", "model")),
    calls(turn.tool_calls), calls(turn.refused_tool_calls, "Tool call not carried out"),
    acted && part("Action", words(turn.action, "action")),
    part("Feedback", words(turn.feedback, "feedback")),
    lazily("Prompt as the model saw it", () => prompt(told.run, told.tree, turns, t, shown ? by.experience : null), shown ? "with the experience marked" : null),
    rows.length ? part("Training rows", rowList(rows)) : null);
}

// Drawn when it is opened.
function lazily(name, make, note) {
  const box = h("details", {}, h("summary", {}, name, note && h("span", { class: "dim" }, ` ${note}`)));
  box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) box.append(h("div", {}, make())); });
  return box;
}

const rowList = (rows) => h("ul", { class: "rows" }, rows.map(([kind, t, why]) =>
  h("li", { class: why ? "out" : "kept" }, h("b", {}, kind), ` of step ${t}: `, why ? WHY[why] ?? `left out: ${why}` : "exported")));

// Side by side what was done before and after, and the words that led from one to the other.
function rewind(told, branch, turns) {
  const parent = told.byId.get(branch.parent);
  const before = parent ? pathOf(told.byId, parent).map(({ turn }) => turn).slice(branch.at) : [];
  const after = turns.slice(branch.at);
  const why = parent?.reflections.filter((each) => each.decision_point === branch.at) ?? [];
  const reflection = why.find((each) => each.experience === branch.experience) ?? why.at(-1) ?? parent?.reflections.at(-1);
  return h("li", { class: "rewind-card" },
    h("h3", {}, h("span", { "aria-hidden": "true" }, "↶ "), `Rewind to step ${branch.at}`,
      h("span", { class: "dim" }, ` of branch ${visible(branch.parent)}, which ended after ${many(parent ? last(parent) : 0, "step")}`)),
    h("div", { class: "sides" },
      side(told, "Before", parent, before, branch.at), side(told, "After", branch, after, branch.at)),
    branch.experience !== null && part("Experience that the branch was told", words(branch.experience, "experience", "told")),
    reflection && part(`Reflection of branch ${visible(branch.parent)} after ${many(reflection.turn, "step")}, word for word`, words(reflection.raw, "reflection")),
    branch.experience !== null && after.length ? lazily("Where it stood in the prompt", () => prompt(told.run, told.tree, turns, branch.at,
      told.run.experience_turns === 0 ? null : branch.experience), `step ${branch.at}`) : null);
}

function side(told, name, branch, turns, from) {
  if (!branch) return h("div", { class: "side" }, h("h4", {}, name), h("p", { class: "dim" }, "its parent is not in the log"));
  const first = turns[0];
  return h("div", { class: "side" },
    h("h4", {}, name, h("span", { class: "dim" }, ` branch ${visible(branch.id)}`), " ", badge(branch.end)),
    !first ? h("p", { class: "dim" }, "it ended here")
      : (first.content || !first.tool_calls) && words(first.content || first.action, `what branch ${branch.id} said at step ${from}`, "model"),
    first?.tool_calls && calls(first.tool_calls),
    first && h("p", { class: "dim answer" }, "→ ", short(first.feedback, 160)),
    turns.length > 1 && h("p", { class: "then" }, "then ", turns.slice(1, 25).map((turn, i) =>
      [i ? ", " : "", h("a", { href: told.link(branch.id, from + 1 + i) }, short(turn.action || "(nothing)", 24))]),
    turns.length > 25 ? ` and ${amount(turns.length - 25)} more` : ""));
}

function end(told, branch, t, at, choose) {
  const open = at >= t;
  const [, , name] = endOf(branch.end);
  const kept = branch.rows.filter((row) => !row[2]).length;
  return h("li", { class: `turn finish${open ? " open" : ""}` },
    h("button", { type: "button", class: "head", id: `turn-${t}`, "aria-expanded": String(open), onclick: () => choose(branch.id, t) },
      h("span", { class: "step" }, "end"), badge(branch.end),
      h("span", { class: "dim back-said" }, `return ${figure(branch.return)} · ${many(kept, "training row")}`)),
    open && h("div", { class: "body" },
      h("p", { class: "facts dim" }, [name, branch.time && `${moment(branch.time[0])} to ${moment(branch.time[0] + branch.time[1])}`, `return ${figure(branch.return)}`, many(branch.cost.model_calls, "model call"),
        `${amount(branch.cost.prompt_tokens)} + ${amount(branch.cost.completion_tokens)} tokens`, duration(branch.cost.seconds),
        branch.cost.replayed_steps ? `${many(branch.cost.replayed_steps, "step")} replayed` : null].filter(Boolean).join(" · "),
      " · ", h("a", { href: told.link(branch.id, t) }, "link to this end")),
      branch.error && part("Error", words(branch.error, "error", "bad")),
      branch.divergence && part(`The replay showed something else at step ${branch.divergence.turn}`,
        words(branch.divergence.expected, "expected"), words(branch.divergence.actual, "actual")),
      branch.reflections.map((each) => part(`Reflection after ${many(each.turn, "step")}: ${each.verdict.replaceAll("_", " ")}`
        + (each.decision_point === null ? "" : ` to step ${each.decision_point}`)
        + (each.time ? `, ${moment(each.time[0])}, ${duration(each.time[1])}` : ""), words(each.raw, "reflection"))),
      part("Training rows of this branch",
        branch.no_rows && h("p", {}, `No correction is learned from it: ${visible(branch.no_rows)}.`),
        told.tree.no_rows && h("p", {}, visible(told.tree.no_rows)),
        branch.rows.length ? rowList(branch.rows) : h("p", { class: "dim" }, "none"))));
}
