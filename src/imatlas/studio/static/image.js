// The side panel of one image: all that is known of it, and what can be done with it.
import * as api from "./api.js";
import { byId, h, busy, guarded, closeness, short, say } from "./dom.js";
import { state, on, decide, go, remember, selectCluster, clusterOf, describeColumn } from "./state.js";
import { regionPicker } from "./region.js";
import { tile, small } from "./tiles.js";
import { showOnMap } from "./map.js";
import { likeThese, unlikeThese, searchRegion } from "./search.js";
import { createFrom } from "./create.js";
import { workOn } from "./work.js";

let request = null; // of the image being loaded
let pinned = null; // the image kept for comparison
let opener = null; // what had the focus before
let byKeyboard = false;

const panel = byId("image-panel");
const body = byId("image-body");

function fact(term, ...description) {
  return h("div", {}, h("dt", {}, term), h("dd", {}, description));
}

function facts(image) {
  const cluster = clusterOf(image.cluster);
  const select = () => guarded(() => selectCluster(image.cluster));
  const outlier = describeColumn("outlier")?.title ?? "unusual";
  return h("dl", { class: "facts" },
    fact("Size", `${image.width} × ${image.height}`),
    cluster ? fact("Cluster", h("button", { type: "button", class: "link", title: "Select this cluster", onclick: select, data: { testid: "image-cluster" } }, cluster.name)) : null,
    fact("Confidence", short(image.confidence)),
    image.predicted ? fact("Predicted label", `${image.predicted} (${Math.floor(image.predicted_confidence * 100)} % sure)`) : null,
    fact(outlier[0].toUpperCase() + outlier.slice(1), short(image.outlier)),
    image.flags?.length ? fact("Flags", image.flags.join(", ")) : null,
    image.duplicate_of ? fact("Duplicate of", image.duplicate_of) : null,
    image.path ? fact("File", h("code", {}, image.path)) : null);
}

function labelForm(image) {
  const input = h("input", { id: "image-label", type: "text", value: image.label ?? "", autocomplete: "off", list: "known-labels", placeholder: "No label", data: { testid: "image-label" } });
  const apply = h("button", { type: "submit" }, "Apply");
  const put = (value) => busy(apply, () => decide({ kind: "label", rows: [image.row], value }));
  const form = h("form", { class: "row writes", onsubmit: (event) => { event.preventDefault(); put(input.value.trim() || null); } },
    h("label", { htmlFor: "image-label" }, "Label"), input, apply);
  if (image.label) form.append(small("Remove", () => put(null), { "aria-label": "Remove the label" }));
  return form;
}

function explanation(image) {
  const place = h("div", { class: "pair", hidden: true });
  const button = h("button", { type: "button", data: { testid: "why" } }, "Why here?");
  button.addEventListener("click", () => busy(button, async () => {
    say("Working out why the image is in its cluster.");
    const address = URL.createObjectURL(await api.why(image.row));
    const heat = h("img", { src: address, alt: `Heat map: the parts of ${image.key} that put it into its cluster`, onload: () => URL.revokeObjectURL(address) });
    place.replaceChildren(h("figure", {}, h("img", { src: api.picture(image.row, 800), alt: image.key }), h("figcaption", {}, "the image")),
      h("figure", {}, heat, h("figcaption", {}, "what places it here")));
    place.hidden = false;
    say("The heat map is shown.");
  }));
  return { button, place };
}

function comparison(image) {
  if (pinned === null || pinned.row === image.row) return null;
  const side = (one, name) => h("figure", {}, h("img", { src: api.picture(one.row, 800), alt: one.key }), h("figcaption", {}, `${name}: ${one.key}`));
  return h("section", { "aria-label": "Comparison", data: { testid: "comparison" } }, h("h3", {}, "Side by side"),
    h("div", { class: "pair" }, side(pinned, "pinned"), side(image, "this")),
    small("Stop comparing", () => { pinned = null; load(image.row); }));
}

function actions(image, why) {
  const button = (text, onclick, testid, properties = {}) => h("button", { type: "button", onclick, data: { testid }, ...properties }, text);
  const pin = button(pinned?.row === image.row ? "Pinned" : "Compare", () => {
    pinned = pinned?.row === image.row ? null : image;
    pin.textContent = pinned ? "Pinned" : "Compare";
    pin.setAttribute("aria-pressed", String(pinned !== null));
    say(pinned ? "Pinned. Open another image to see both side by side." : "No longer pinned.");
  }, "compare", { "aria-pressed": String(pinned?.row === image.row), title: "Pin this image, then open another to see both" });
  const select = button(state.selection.has(image.row) ? "Deselect" : "Select", () => {
    state.selection.toggle(image.row);
    select.textContent = state.selection.has(image.row) ? "Deselect" : "Select";
  }, "image-select");
  return h("div", { class: "actions" },
    button("Show on map", () => showOnMap(image.row), "show-on-map"),
    select,
    button("More like this", () => likeThese([image.row], true), "more-like"),
    button("Less like this", () => unlikeThese([image.row]), "less-like"),
    pin,
    state.atlas.can.explain ? why.button : null,
    state.atlas.can.create ? button("New images from here", () => createFrom(image.row, image.key), "create-from") : null,
    button("Work on this", () => workOn(image.row), "work-on"),
    button(image.left_out ? "Put back" : "Leave out", (event) => busy(event.currentTarget, () => decide({ kind: "leave_out", rows: [image.row], value: !image.left_out })), "image-leave-out", { class: "writes" }));
}

function draw(image) {
  const searchButton = h("button", { type: "button", class: "primary", hidden: true, data: { testid: "search-region" } }, "Search this region");
  const picker = regionPicker(api.picture(image.row), image.key, image, (region) => { searchButton.hidden = region === null; });
  searchButton.addEventListener("click", () => searchRegion({ row: image.row, key: image.key, region: picker.get() }));
  picker.frame.dataset.testid = "image-picture";
  const why = explanation(image);
  const neighbors = (image.neighbors ?? []).map((one) => tile(one.row, one.key, { caption: closeness(one.closer_than) }));
  byId("image-title").textContent = image.key;
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.testid : null;
  body.replaceChildren(
    picker.element, h("p", { class: "hint" }, "Draw a rectangle on the picture to search for that part."), searchButton,
    comparison(image) ?? "", actions(image, why), why.place, labelForm(image), facts(image),
    h("section", {}, h("h3", {}, "Nearest images"), h("ul", { class: "tiles dense", data: { testid: "neighbors" } }, neighbors)));
  body.setAttribute("aria-busy", "false");
  // A decision draws the panel again; the keyboard stays where it was.
  if (focused) body.querySelector(`[data-testid="${focused}"]`)?.focus({ preventScroll: true });
}

async function load(row) {
  request?.abort();
  request = new AbortController();
  body.setAttribute("aria-busy", "true");
  await guarded(async () => {
    const image = await api.getImage(row, request.signal);
    remember([image]);
    draw(image);
  });
}

let loaded = null; // {row, revision} in the panel

function follow() {
  const row = state.route.image;
  const wasHidden = panel.hidden;
  panel.hidden = row === null;
  document.body.classList.toggle("with-image", row !== null);
  if (row === null) {
    loaded = null;
    if (!wasHidden && opener?.isConnected && byKeyboard) opener.focus();
    return;
  }
  if (loaded?.row === row && loaded.revision === state.atlas.revision) return;
  const sameImage = loaded?.row === row;
  loaded = { row, revision: state.atlas.revision };
  load(row);
  if (sameImage) return;
  panel.scrollTop = 0;
  if (wasHidden) opener = document.activeElement;
  // A pointer stays where it was, on the map or in a list; a keyboard goes on in the panel.
  if (byKeyboard) byId("image-title").focus({ preventScroll: true });
}

/** Closes the panel; whether it was open. */
export function closeImage() {
  if (state.route.image === null) return false;
  go(state.route.view, null);
  return true;
}

/** Connects the panel. */
export function startImage() {
  byId("image-close").addEventListener("click", closeImage);
  document.addEventListener("keydown", () => { byKeyboard = true; }, true);
  document.addEventListener("pointerdown", () => { byKeyboard = false; }, true);
  on("route", follow);
  on("atlas", follow);
}
