// What was said: by a model, a world, a person. All of it is text, however it looks.

import { amount, h, visible } from "./dom.js";

const FIRST = 6000, MORE = 50000;

// A text as it was said. A long one begins, and goes on when asked.
export function words(text, label, style = "") {
  const said = String(text);
  const box = h("pre", { class: `words ${style}`, dir: "auto", tabindex: said.length > 400 ? "0" : null, role: said.length > 400 ? "region" : null, "aria-label": label });
  let shown = 0;
  const add = (count) => {
    let upto = Math.min(said.length, shown + count);
    if (upto < said.length && /[\ud800-\udbff]/.test(said[upto - 1])) upto++;
    box.append(visible(said.slice(shown, upto)));
    shown = upto;
  };
  add(said.length > FIRST * 1.5 ? FIRST : said.length);
  if (!said.length) box.append(h("span", { class: "dim" }, "(empty)"));
  if (shown === said.length) return box;
  const more = h("button", { type: "button", class: "more" });
  const tell = () => {
    more.textContent = `Show ${amount(Math.min(MORE, said.length - shown))} more of ${amount(said.length)} characters`;
    if (shown === said.length) more.remove();
  };
  more.addEventListener("click", () => { add(MORE); tell(); });
  tell();
  return h("div", { class: "long" }, box, more);
}

export const part = (name, ...content) => h("section", { class: "part-of" }, h("h4", {}, name), content);

export const json = (value) => JSON.stringify(value, null, 1);

export function calls(list, name = "Tool call") {
  return (list ?? []).map((call) => {
    const { name: tool, args } = call.function ? { name: call.function.name, args: call.function.arguments } : call;
    return part(`${name}: ${visible(String(tool))}`, words(typeof args === "string" ? args : json(args), "arguments"));
  });
}

const contentOf = (content) => (typeof content === "string" ? content
  : Array.isArray(content) ? content.map((block) => (typeof block === "string" ? block : block.text ?? json(block))).join("") : json(content));

// The prompt of a turn as the model saw it, with the experience marked where it stood; `run` is the overview.
export function prompt(run, tree, path, t, experience) {
  const turn = path[t];
  let messages;
  if (turn.request) messages = turn.request.map((number) => tree.messages[number]);
  else {
    messages = tree.task.instruction ? [{ role: "system", content: tree.task.instruction }] : [];
    const first = run.history === null || run.history === undefined ? 0 : Math.max(0, t - run.history);
    for (const before of path.slice(first, t)) {
      messages.push({ role: "user", content: before.observation }, { role: "assistant", content: before.said ?? before.content });
    }
    messages.push({ role: "user", content: turn.observation });
  }
  const told = experience === null || !run.told[0] && !run.told[1] ? null : run.told[0] + experience + run.told[1];
  const own = told !== null && !["user", "tool"].includes(messages.at(-1)?.role);
  return [
    messages.map((message, i) => h("div", { class: `message ${message.role}` },
      h("h5", {}, visible(message.role), message.name ? ` ${visible(message.name)}` : ""),
      words(contentOf(message.content), `${message.role} message`), calls(message.tool_calls),
      told !== null && !own && i === messages.length - 1 && h("mark", {}, words(told, "the experience, at the end of this message")))),
    own && h("div", { class: "message user" }, h("h5", {}, "user"), h("mark", {}, words(told, "the experience, a message of its own"))),
    turn.tools !== null && turn.tools !== undefined && h("details", {}, h("summary", {}, "Tools that it had"), words(json(tree.messages[turn.tools]), "schemas of tools")),
  ];
}
