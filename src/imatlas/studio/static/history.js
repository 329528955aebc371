// Everything that was made before, and the images that were kept: by a click they are back, also tomorrow.
import * as api from "./api.js";
import { byId, h, busy, count, say } from "./dom.js";
import { describe, when } from "./recipes.js";
import { showMade, shownCreation } from "./made.js";
import { small } from "./tiles.js";

const MORE = 40;

let limit = MORE;
let onrecall = () => null; // hears of a creation that is back

const small64 = (picture) => (picture ? `data:image/webp;base64,${picture}` : "");
const preview = (picture) => h("img", { src: small64(picture), alt: "" });

/** Brings a creation back, and shows one of its images in large. */
async function bringBack(one, image = null) {
  say("Bringing it back…");
  const result = await api.resultOf(await api.recall(one.id), () => null);
  onrecall(result);
  showMade(result, image);
  markShown();
  byId("create-title").scrollIntoView({ block: "nearest" });
}

function markShown() {
  for (const button of byId("create-history").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.id === shownCreation()));
}

function entry(one) {
  return h("li", {}, h("button", { type: "button", title: describe(one.recipe), data: { id: one.id, testid: "earlier" }, onclick: (event) => busy(event.currentTarget, () => bringBack(one)) },
    h("span", { class: "strip", "aria-hidden": "true" }, one.pictures.map(preview)), h("span", { class: "what" }, h("span", {}, describe(one.recipe)), h("span", { class: "hint" }, when(one.time)))));
}

function keptItem(one) {
  const name = describe(one.recipe);
  return h("li", { class: "tile" }, h("button", { type: "button", class: "tile-open", title: name, "aria-label": `Show ${name}, image ${one.image + 1}`, data: { testid: "kept-image" }, onclick: (event) => busy(event.currentTarget, () => bringBack(one, one.image)) }, preview(one.picture)),
    h("p", { class: "caption" }, h("span", {}, name)),
    small("Remove", (event) => busy(event.currentTarget, async () => { await api.keep(one.id, one.image, false); await drawHistory(); }), { "aria-label": `Keep ${name}, image ${one.image + 1}, no longer` }));
}

/** Asks what was made, and draws it. */
export async function drawHistory() {
  const { total, creations, kept } = await api.getCreations(limit);
  byId("create-earlier").hidden = !total;
  byId("create-earlier-total").textContent = count(total);
  byId("create-history").replaceChildren(...creations.map(entry));
  byId("create-more").hidden = total <= creations.length;
  byId("create-kept").hidden = !kept.length;
  byId("create-kept-images").replaceChildren(...kept.map(keptItem));
  markShown();
}

/** Connects the lists; `recalled` hears of a creation that is back. */
export function startHistory(recalled) {
  onrecall = recalled;
  byId("create-more").addEventListener("click", (event) => busy(event.currentTarget, async () => { limit += MORE; await drawHistory(); }));
}
