// Groups of images that show the same; the best of each is marked.
import * as api from "./api.js";
import { byId, h, busy, withProgress, count, images, say } from "./dom.js";
import { state, on, setAtlas, isMoved, decide } from "./state.js";
import { tile, small } from "./tiles.js";

const STEP = 50; // groups shown at a time

let groups = [];
let shown = STEP;

// Those that can go: not the best, and not in the trash already.
const others = (group) => group.filter((image) => !image.best && !isMoved(image.row)).map((image) => image.row);

function groupItem(group, i) {
  const name = `group ${i + 1}`;
  const header = h("header", {}, h("h3", {}, images(group.length)));
  if (others(group).length) {
    header.append(small("Select the others", () => state.selection.change(others(group), "add"), { "aria-label": `Select the others of ${name}` }),
    small("Leave the others out", (event) => busy(event.currentTarget, () => decide({ kind: "leave_out", rows: others(group), value: true })), { class: "small writes", "aria-label": `Leave the others of ${name} out` }));
  }
  return h("li", { class: "group", data: { testid: "duplicate-group" } }, header,
    h("ul", { class: "tiles dense" }, group.map((image) => tile(image.row, image.key, { caption: `${image.width} × ${image.height}`, badge: image.best ? "best" : "" }))));
}

function draw() {
  byId("duplicates").replaceChildren(...groups.slice(0, shown).map(groupItem));
  byId("duplicates-more").hidden = groups.length <= shown;
  const spare = groups.reduce((sum, group) => sum + others(group).length, 0);
  const gone = groups.flat().filter((image) => isMoved(image.row)).length;
  const trash = gone ? ` ${images(gone)} ${gone === 1 ? "is" : "are"} in the trash.` : "";
  byId("duplicates-found").textContent = groups.length ? `${count(groups.length)} ${groups.length === 1 ? "group" : "groups"}; ${images(spare)} could go.${trash}` : "No duplicates were found.";
  byId("duplicates-select").hidden = !spare;
  byId("duplicates-move").hidden = !spare || state.atlas.read_only || !state.atlas.can.originals;
  say(byId("duplicates-found").textContent);
}

async function find() {
  await withProgress(byId("duplicates-progress"), async (onprogress) => {
    const result = await api.resultOf(await api.findDuplicates(), (event) => {
      onprogress(event);
      byId("duplicates-found").textContent = event.line ?? "";
    });
    groups = result.groups;
    shown = STEP;
    draw();
  });
}

/** Shows which files are where now, and what was done. */
function tell({ atlas, sentences }) {
  state.selection.change(atlas.moved, "remove");
  setAtlas(atlas);
  if (groups.length) draw();
  byId("duplicates-found").textContent = sentences.join(" ");
  say(sentences.join(" "));
}

async function move() {
  const rows = groups.flatMap(others);
  const question = `Move the files of ${images(rows.length)} out of ${state.atlas.source}, to a trash folder beside it? Nothing is deleted, and this can be undone.`;
  if (!confirm(question)) return;
  tell(await api.moveAway(rows));
}

async function bringBack() {
  tell(await api.bringBack());
}

const offerBringingBack = () => { byId("duplicates-undo").hidden = state.atlas.read_only || !state.moved.size; };

/** Connects the tab of duplicates. */
export function startDuplicates() {
  on("atlas", offerBringingBack);
  offerBringingBack();
  byId("duplicates-find").addEventListener("click", (event) => busy(event.currentTarget, find));
  byId("duplicates-move").addEventListener("click", (event) => busy(event.currentTarget, move));
  byId("duplicates-undo").addEventListener("click", (event) => busy(event.currentTarget, bringBack));
  byId("duplicates-more").addEventListener("click", () => { shown += STEP; draw(); });
  byId("duplicates-select").addEventListener("click", () => state.selection.change(groups.flatMap(others)));
}
