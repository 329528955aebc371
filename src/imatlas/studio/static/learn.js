// The page of a folder that has no atlas yet: what is in it, and learning; then the studio takes its place.
import { byId, h, busy } from "./dom.js";

const STATES = {
  new: "", learning: "Learning", done: "Done; opening the studio…",
  stopped: "Stopped. What is finished is kept; Learn goes on.", failed: "It failed; the last lines say why.",
};
const STAGE = /^(\d)\/(\d) (\S+)/;

async function post(path, body) {
  const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.error), { name: "ApiError" });
  return answer;
}

function sentence(event) {
  if (event.state !== "learning") return STATES[event.state];
  const stage = event.lines.map((line) => STAGE.exec(line)).filter(Boolean).at(-1);
  const done = stage ? `${stage[1]} of ${stage[2]} steps done, ` : "";
  return `${STATES.learning}: ${done}${event.seconds} s`;
}

function show(event) {
  byId("name").textContent = event.name;
  byId("source").textContent = event.source;
  byId("atlas").textContent = event.atlas;
  if (event.check) byId("check").replaceChildren(...event.check.map((text) => h("li", {}, text)));
  const isLearning = event.state === "learning" || event.state === "done";
  byId("start").disabled = isLearning;
  byId("stop").hidden = event.state !== "learning";
  byId("state").textContent = sentence(event);
  const lines = byId("lines");
  lines.hidden = !event.lines.length;
  const isAtEnd = lines.scrollTop + lines.clientHeight > lines.scrollHeight - 8;
  lines.textContent = event.lines.join("\n");
  if (isAtEnd) lines.scrollTop = lines.scrollHeight;
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(byId("start"), async () => show(await post("/api/learn", { budget: byId("budget").value || null, encoder: byId("encoder").value })));
});
byId("stop").addEventListener("click", () => busy(byId("stop"), async () => show(await post("/api/stop", {}))));

const events = new EventSource("/api/folder/events");
events.onmessage = (message) => {
  const event = JSON.parse(message.data);
  show(event);
  if (event.state !== "done") return;
  events.close();
  location.reload();
};
