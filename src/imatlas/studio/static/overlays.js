// What lies over the canvas as elements of the page: names of clusters, and the tip of the image under the pointer.
import { thumbnail } from "./api.js";
import { byId, h, debounced } from "./dom.js";
import { keysOf } from "./state.js";

const MOST_NAMES = 60;
const NAME_SIZE = [110, 28]; // pixels that a name needs for itself
const TIP_SIZE = 200;
const TIP_HEIGHT = 240; // at most, with a long name

let hovered = -1; // the row that the tip is about

/** Makes the names of the clusters, the largest first: where names would overlap, it stays. */
export function drawNames(clusters) {
  const named = clusters.filter((cluster) => cluster.size > 0).sort((one, other) => other.size - one.size).slice(0, MOST_NAMES);
  byId("map-names").replaceChildren(...named.map((cluster) => h("span", { data: { row: cluster.medoid } }, cluster.name)));
}

/** Puts the names where `place(row)` says, or null for nowhere; `visible` is false where points have faded. */
export function placeNames(visible, place, [width, height]) {
  const placed = [];
  for (const name of byId("map-names").children) {
    const at = visible ? place(Number(name.dataset.row)) : null;
    const isFree = at && at[0] >= 0 && at[1] >= 0 && at[0] <= width && at[1] <= height
      && !placed.some((other) => Math.abs(other[0] - at[0]) < NAME_SIZE[0] && Math.abs(other[1] - at[1]) < NAME_SIZE[1]);
    name.hidden = !isFree;
    if (!isFree) continue;
    placed.push(at);
    name.style.transform = `translate(-50%, -50%) translate(${at[0]}px, ${at[1]}px)`;
  }
}

/** Hides the tip. */
export function hideTip() {
  hovered = -1;
  byId("map-tip").hidden = true;
}

/** Shows the tip of an image beside the pointer; row -1 hides it. */
export function showTip(row, x, y, [width, height]) {
  const tip = byId("map-tip");
  tip.style.transform = `translate(${x > width - TIP_SIZE - 20 ? x - TIP_SIZE : x + 16}px, ${Math.max(8, Math.min(height - TIP_HEIGHT, y - 40))}px)`;
  if (row === hovered) return;
  hovered = row;
  if (row < 0) tip.hidden = true;
  else describe(row);
}

// A pause first: a pointer on its way somewhere else should not ask for every image it passes.
const describe = debounced(async (row) => {
  if (row !== hovered) return;
  const [key] = await keysOf([row]).catch(() => [""]);
  if (row !== hovered || !key) return;
  const tip = byId("map-tip");
  tip.replaceChildren(h("img", { src: thumbnail(row), alt: "" }), h("span", {}, key));
  tip.hidden = false;
}, 60);
