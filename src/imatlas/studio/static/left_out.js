// Images that are left out: those that the atlas still has, and those that it was learned without.
import * as api from "./api.js";
import { byId, h, busy, guarded, count, images } from "./dom.js";
import { state, on, decide, keysOf } from "./state.js";
import { tile, small } from "./tiles.js";

const STEP = 60; // tiles shown at a time

let found = null; // the server's answer
let shown = STEP;
let revision = -1;

const keep = (keys) => decide({ kind: "keep", keys });

function keepButton(text, keys, properties = {}) {
  return small(text, (event) => busy(event.currentTarget, () => keep(keys)), { class: "small writes", ...properties });
}

async function drawPresent() {
  const rows = found.rows.slice(0, shown);
  const keys = await keysOf(rows);
  byId("left-out-images").replaceChildren(...rows.map((row, i) => {
    const made = tile(row, keys[i], { extra: keepButton("Keep", [keys[i]], { "aria-label": `Keep ${keys[i]}` }) });
    made.classList.add("left-out");
    return made;
  }));
  byId("left-out-more").hidden = found.rows.length <= shown;
}

function drawGone() {
  byId("left-out-gone").replaceChildren(...found.gone.map(({ key, is_there: isThere }) => h("li", {},
    h("span", { class: "name" }, key, isThere ? null : h("span", { class: "hint" }, " (its file is no longer there)")),
    keepButton("Bring back", [key], { "aria-label": `Bring back ${key}`, data: { testid: "bring-back" } }))));
  const more = found.total - found.gone.length;
  byId("left-out-gone-more").textContent = more > 0 ? `And ${count(more)} more; bring some of these back to see them.` : "";
}

async function load() {
  revision = state.atlas.revision;
  await guarded(async () => {
    found = await api.getLeftOut();
    byId("left-out-none").hidden = found.rows.length + found.total > 0;
    byId("left-out-present").hidden = !found.rows.length;
    byId("left-out-absent").hidden = !found.total;
    byId("left-out-count").textContent = images(found.rows.length);
    byId("left-out-gone-count").textContent = images(found.total);
    drawGone();
    await drawPresent();
  });
}

/** Loads the list if it is not that of this revision already. */
export function showLeftOut() {
  if (revision !== state.atlas.revision) load();
}

/** Connects the tab. */
export function startLeftOut() {
  byId("left-out-more").addEventListener("click", () => { shown += STEP; guarded(drawPresent); });
  byId("left-out-keep-all").addEventListener("click", (event) => busy(event.currentTarget, async () => {
    await decide({ kind: "leave_out", rows: found.rows, value: false });
  }));
  byId("left-out-bring-all").addEventListener("click", (event) => busy(event.currentTarget, () => keep(found.gone.map((one) => one.key))));
  on("atlas", () => { if (!byId("panel-left-out").hidden) showLeftOut(); });
}
