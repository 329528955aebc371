// Groups of images that show the same; the best of each is marked.
import * as api from "./api.js";
import { byId, h, busy, guarded, withProgress, count, images, say } from "./dom.js";
import { state, on, setAtlas, isMoved, decide } from "./state.js";
import { tile, small } from "./tiles.js";

const WRITES = "small writes";

const STEP = 50; // groups shown at a time

let groups = [];
let different = []; // rows that were said to be no duplicates of others
let revision = null; // of the decisions that the groups follow; null before a search
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
  header.append(small("Not duplicates", (event) => busy(event.currentTarget, () => decide({ kind: "different", rows: group.map((image) => image.row), value: true })), { class: WRITES, title: "Each shows something else; the next searches respect it", "aria-label": `The images of ${name} are not duplicates`, data: { testid: "not-duplicates" } }));
  return h("li", { class: "group", data: { testid: "duplicate-group" } }, header, h("ul", { class: "tiles dense" }, group.map((image) => groupTile(image, group))));
}

function groupTile(image, group) {
  const caption = `${image.width} × ${image.height}${image.kind ? `, ${image.kind === "exact" ? "exact copy" : image.kind}` : ""}`;
  const keep = image.best || isMoved(image.row) ? [] : [small("Keep this one", (event) => busy(event.currentTarget, () => decide({ kind: "best", row: image.row })), { class: WRITES, "aria-label": `Keep ${image.key} of its group`, data: { testid: "keep-this" } })];
  const none = group.length < 3 ? [] : [small("No duplicate", (event) => busy(event.currentTarget, () => takeOut(image, group)), { class: WRITES, "aria-label": `${image.key} is no duplicate`, data: { testid: "no-duplicate" } })];
  return tile(image.row, image.key, { caption, badge: image.best ? "best" : "", extra: [...keep, ...none] });
}

/** Takes one image out of its group. Its duplicates were found beside the best one, so without that they are searched again. */
async function takeOut(image, group) {
  await decide({ kind: "different", rows: [image.row], others: group.map((one) => one.row).filter((row) => row !== image.row), value: true });
  if (image.best) await find();
}

function draw() {
  byId("duplicates").replaceChildren(...groups.slice(0, shown).map(groupItem));
  byId("duplicates-more").hidden = groups.length <= shown;
  const spare = groups.reduce((sum, group) => sum + others(group).length, 0);
  const gone = groups.flat().filter((image) => isMoved(image.row)).length;
  const trash = gone ? ` ${images(gone)} ${gone === 1 ? "is" : "are"} in the trash.` : "";
  const copies = groups.flat().filter((image) => image.kind === "exact").length;
  const kinds = copies ? ` ${count(copies)} ${copies === 1 ? "is an exact copy" : "are exact copies"}, the others were saved again, resized or edited.` : "";
  byId("duplicates-found").textContent = groups.length ? `${count(groups.length)} ${groups.length === 1 ? "group" : "groups"}; ${images(spare)} could go.${kinds}${trash}` : "No duplicates were found.";
  byId("duplicates-different").hidden = !different.length;
  byId("duplicates-different-count").textContent = `${images(different.length)} ${different.length === 1 ? "is" : "are"} marked as no duplicates of others.`;
  byId("duplicates-select").hidden = !spare;
  byId("duplicates-move").hidden = !spare || state.atlas.read_only || !state.atlas.can.originals;
  say(byId("duplicates-found").textContent);
}

/** Searches; until it is done, what acts on groups waits, since those that are seen may be others than those found. */
async function find() {
  const waiting = ["select", "move", "forget"].map((name) => byId(`duplicates-${name}`));
  for (const button of waiting) button.disabled = true;
  try {
    await withProgress(byId("duplicates-progress"), async (onprogress) => {
      const result = await api.resultOf(await api.findDuplicates(), (event) => {
        onprogress(event);
        byId("duplicates-found").textContent = event.line ?? "";
      });
      shown = STEP;
      take(result);
    });
  } finally {
    for (const button of waiting) button.disabled = false;
  }
}

function take(result) {
  ({ groups, different } = result);
  revision = state.atlas.revision;
  draw();
}

/** Follows decisions, also those that are undone. */
async function follow() {
  offerBringingBack();
  if (revision === null || revision === state.atlas.revision) return;
  revision = state.atlas.revision;
  take(await api.getDuplicates());
}

/** Shows which files are where now, and what was done. */
function tell({ atlas, sentences }) {
  state.selection.change(atlas.moved, "remove");
  if (revision !== null) ({ revision } = atlas); // no group has changed
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
  on("atlas", () => guarded(follow));
  offerBringingBack();
  byId("duplicates-find").addEventListener("click", (event) => busy(event.currentTarget, find));
  byId("duplicates-move").addEventListener("click", (event) => busy(event.currentTarget, move));
  byId("duplicates-undo").addEventListener("click", (event) => busy(event.currentTarget, bringBack));
  byId("duplicates-forget").addEventListener("click", (event) => busy(event.currentTarget, async () => {
    await decide({ kind: "different", rows: different, value: false });
    await find();
  }));
  byId("duplicates-more").addEventListener("click", () => { shown += STEP; draw(); });
  byId("duplicates-select").addEventListener("click", () => state.selection.change(groups.flatMap(others)));
}
