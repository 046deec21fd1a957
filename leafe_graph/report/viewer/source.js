// Where the data come from: they lie in the page itself, deflated, or a server on this machine is asked for them.

async function unpack(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

const read = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", () => resolve(), { once: true });
});

async function block(name) {
  if (!document.getElementById(name)) await read; // the page is long, and may still be read
  const found = document.getElementById(name);
  if (!found) throw new Error(`this page has no ${name}: it was not written whole`);
  return unpack(found.textContent);
}

async function ask(name) {
  const answer = await fetch(name, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${(await answer.text()).slice(0, 300)}`);
  return answer.json();
}

export const live = document.querySelector("meta[name=live]") !== null;
export const overviewData = () => (live ? ask("overview.json") : block("overview"));
export const treeData = (place) => (live ? ask(`trees/${place}.json`) : block(`tree-${place}`));

// Calls back whenever there is more than the version that was seen; of a page that was written once there never is.
export function follow(seen, grown, say) {
  if (!live) return;
  const events = new EventSource(`events?seen=${encodeURIComponent(seen)}`);
  events.addEventListener("grown", grown);
  events.addEventListener("open", () => say("live"));
  events.addEventListener("error", () => say("not live: the server is gone"));
}
