// Groups of images that show the same; the best of each is marked.
import * as api from "./api.js";
import { byId, h, busy, count, images, say } from "./dom.js";
import { state, decide } from "./state.js";
import { tile, small } from "./tiles.js";

const STEP = 50; // groups shown at a time

let groups = [];
let shown = STEP;

const others = (group) => group.filter((image) => !image.best).map((image) => image.row);

function groupItem(group, i) {
  const name = `group ${i + 1}`;
  return h("li", { class: "group", data: { testid: "duplicate-group" } },
    h("header", {}, h("h3", {}, `${images(group.length)}`), small("Select the others", () => state.selection.change(others(group), "add"), { "aria-label": `Select the others of ${name}` }),
      small("Leave the others out", (event) => busy(event.currentTarget, () => decide({ kind: "leave_out", rows: others(group), value: true })), { class: "small writes", "aria-label": `Leave the others of ${name} out` })),
    h("ul", { class: "tiles dense" }, group.map((image) => tile(image.row, image.key, { caption: `${image.width} × ${image.height}`, badge: image.best ? "best" : "" }))));
}

function draw() {
  byId("duplicates").replaceChildren(...groups.slice(0, shown).map(groupItem));
  byId("duplicates-more").hidden = groups.length <= shown;
  const spare = groups.reduce((sum, group) => sum + others(group).length, 0);
  byId("duplicates-found").textContent = groups.length ? `${count(groups.length)} ${groups.length === 1 ? "group" : "groups"}; ${images(spare)} could go.` : "No duplicates were found.";
  byId("duplicates-select").hidden = !groups.length;
  byId("duplicates-move").hidden = !groups.length || state.atlas.read_only || !state.atlas.can.originals;
  say(byId("duplicates-found").textContent);
}

async function find() {
  const bar = byId("duplicates-progress");
  bar.hidden = false;
  bar.removeAttribute("value");
  try {
    const result = await api.resultOf(await api.findDuplicates(), (event) => {
      if (event.progress !== null) bar.value = event.progress;
      byId("duplicates-found").textContent = event.line ?? "";
    });
    groups = result.groups;
    shown = STEP;
    draw();
  } finally {
    bar.hidden = true;
  }
}

async function move() {
  const rows = groups.flatMap(others);
  const question = `Move the files of ${images(rows.length)} out of ${state.atlas.source}, to a trash folder beside it? Nothing is deleted, and this can be undone.`;
  if (!confirm(question)) return;
  const { sentences } = await api.moveAway(rows);
  byId("duplicates-found").textContent = sentences.join(" ");
  say(sentences.join(" "));
  byId("duplicates-move").hidden = true;
  byId("duplicates-undo").hidden = false;
}

async function bringBack() {
  const { sentences } = await api.bringBack();
  byId("duplicates-undo").hidden = true;
  draw();
  byId("duplicates-found").textContent = sentences.join(" ");
  say(sentences.join(" "));
}

/** Connects the tab of duplicates. */
export function startDuplicates() {
  byId("duplicates-find").addEventListener("click", (event) => busy(event.currentTarget, find));
  byId("duplicates-move").addEventListener("click", (event) => busy(event.currentTarget, move));
  byId("duplicates-undo").addEventListener("click", (event) => busy(event.currentTarget, bringBack));
  byId("duplicates-more").addEventListener("click", () => { shown += STEP; draw(); });
  byId("duplicates-select").addEventListener("click", () => state.selection.change(groups.flatMap(others)));
}
