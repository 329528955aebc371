// What was made: one image in large with all that can be done with it, the others of its creation, and two side by side.
import * as api from "./api.js";
import { byId, h, busy, say, toast, images } from "./dom.js";
import { state, openImage } from "./state.js";
import { describe } from "./recipes.js";
import { tracedPicture, sourceList } from "./provenance.js";

let current = null; // the creation on show
let index = 0; // of the image in large
let tiled = false;
let pinned = null; // {creation, index} to compare with
let playing = 0;
let onkeep = () => null;

const FRAME = 90; // milliseconds

const nameOf = (creation, i) => (creation.n === 1 ? describe(creation.recipe) : `${describe(creation.recipe)}, number ${i + 1} of ${creation.n}`);
const button = (text, testid, onclick, properties = {}) => h("button", { type: "button", onclick, data: { testid }, ...properties }, text);

function fileName(ending) {
  const key = (current.recipe.images[0] ?? "anywhere").replace(/^.*[\\/]/, "").replace(/\.\w+$/, "").slice(0, 40);
  return `${state.atlas.name}-${current.recipe.kind}-${key}-${index + 1}.${ending}`;
}

function saveRecipe() {
  const { recipe } = current;
  const text = JSON.stringify({ atlas: state.atlas.name, generator: current.version, recipe, image: index }, null, 1);
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: fileName("json") });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function toggleKept() {
  const kept = !current.kept.includes(index);
  const { note } = await api.keep(current.id, index, kept);
  current.kept = kept ? [...current.kept, index] : current.kept.filter((one) => one !== index);
  if (note) toast(note, "note");
  say(kept ? "Kept." : "No longer kept.");
  draw();
  onkeep();
}

function togglePinned() {
  const isPinned = pinned?.creation.id === current.id && pinned.index === index;
  pinned = isPinned ? null : { creation: current, index };
  say(pinned ? "Choose another image to see both side by side." : "No longer compared.");
  draw();
}

function actions() {
  const isPinned = pinned?.creation.id === current.id && pinned.index === index;
  const isKept = current.kept.includes(index);
  return h("div", { class: "actions" },
    button(isKept ? "Kept" : "Keep", "made-keep", (event) => busy(event.currentTarget, toggleKept), { "aria-pressed": String(isKept), title: "Kept images stay in the list below, also tomorrow" }),
    button(isPinned ? "Pinned" : "Compare", "made-compare", togglePinned, { "aria-pressed": String(isPinned), title: "Pin this image, then choose another to see both" }),
    button("Tile 3 × 3", "made-tile", () => { tiled = !tiled; draw(); }, { "aria-pressed": String(tiled), title: "Show nine copies side by side, to see the seams" }),
    h("a", { class: "button", href: api.made(current, index), download: fileName("png"), data: { testid: "made-download" }, title: "PNG; its recipe is in the text chunk “imatlas”" }, "Download"),
    current.recipe.kind === "morph" ? h("a", { class: "button", href: api.madeVideo(current), download: fileName("webp"), data: { testid: "made-video" } }, "Download video") : null,
    button("Recipe", "made-recipe", saveRecipe, { title: "All that this image depends on, as JSON" }));
}

function picture() {
  if (!tiled) return tracedPicture(current, index, nameOf(current, index));
  const nine = h("div", { class: "nine", role: "img", "aria-label": `Nine copies of ${nameOf(current, index)}`, data: { testid: "nine" } });
  nine.style.backgroundImage = `url("${api.made(current, index)}")`;
  nine.style.aspectRatio = `${current.width} / ${current.height}`;
  return { element: nine, light: () => null };
}

/** Connects the slider of a morph, on which one drags through the frames, and the button that plays it. */
export function startMade() {
  const slider = byId("create-frame");
  slider.addEventListener("input", () => { stop(); select(Number(slider.value)); });
  byId("create-play").addEventListener("click", () => { if (playing) stop(); else play(); });
}

function stop() {
  clearInterval(playing);
  playing = 0;
  byId("create-play").textContent = "Play";
}

function play() {
  let step = index === current.n - 1 ? -1 : 1;
  playing = setInterval(() => {
    if (index + step < 0 || index + step >= current.n) step = -step;
    select(index + step);
  }, FRAME);
  byId("create-play").textContent = "Pause";
}

/** Which of the images is in large. */
function place() {
  if (current.n === 1 || current.recipe.kind === "sliders") return "";
  return h("p", { class: "hint", data: { testid: "made-place" } }, `${current.recipe.kind === "morph" ? "Frame" : "Image"} ${index + 1} of ${current.n}`);
}

function draw() {
  const focused = document.activeElement?.dataset?.testid;
  const { element, light } = picture();
  const sources = current.sources[index] ?? [];
  byId("create-title").textContent = describe(current.recipe);
  byId("create-note").textContent = current.same_generator ? "" : "Made again by another generator than the first time, so the images differ from those.";
  byId("create-note").hidden = current.same_generator;
  byId("create-picture").replaceChildren(element);
  byId("create-side").replaceChildren(actions(), place(), sources.length ? sourceList(sources, light, openImage) : "");
  byId("create-scrubber").hidden = current.recipe.kind !== "morph";
  Object.assign(byId("create-frame"), { max: current.n - 1, value: index });
  byId("create-large").hidden = false;
  for (const one of byId("create-results").querySelectorAll("[data-image]")) {
    if (Number(one.dataset.image) === index) one.setAttribute("aria-current", "true"); else one.removeAttribute("aria-current");
  }
  drawComparison();
  if (focused) byId("create-large").querySelector(`[data-testid="${focused}"]`)?.focus({ preventScroll: true });
}

function drawComparison() {
  const box = byId("create-compare");
  const other = pinned && !(pinned.creation.id === current.id && pinned.index === index);
  box.hidden = !other;
  if (!other) return;
  const side = (creation, i, name) => h("figure", {}, h("img", { src: api.made(creation, i), alt: nameOf(creation, i) }), h("figcaption", {}, `${name}: ${nameOf(creation, i)}`));
  box.replaceChildren(h("div", { class: "results-head" }, h("h2", { class: "found" }, "Side by side"), button("Stop comparing", "made-uncompare", () => { pinned = null; draw(); }, { class: "small" })),
    h("div", { class: "pair" }, side(pinned.creation, pinned.index, "Pinned"), side(current, index, "This")));
}

function select(i) {
  index = i;
  draw();
}

function madeItem(i) {
  return h("li", { class: "made", data: { testid: "made-image" } },
    h("button", { type: "button", "aria-label": `Show image ${i + 1} in large`, data: { image: i }, onclick: () => { stop(); select(i); } }, h("img", { src: api.made(current, i), alt: "", loading: "lazy" })));
}

/** A direction of variation: its slider goes through the images along it. */
function sliderItem(direction) {
  const { steps } = current.recipe;
  const first = direction * steps;
  const isShown = index >= first && index < first + steps;
  const middle = isShown ? index - first : Math.floor(steps / 2);
  const image = h("img", { src: api.made(current, first + middle), alt: "" });
  const input = h("input", { type: "range", min: 0, max: steps - 1, value: middle, "aria-label": `Direction ${direction + 1}`, data: { image: first + middle, testid: "direction" } });
  input.addEventListener("input", () => {
    const i = first + Number(input.value);
    image.src = api.made(current, i);
    input.dataset.image = i;
    select(i);
  });
  const ends = [0, steps - 1].map((step) => h("img", { class: "end", src: api.made(current, first + step), alt: "", loading: "lazy" }));
  return h("li", { class: "direction" }, image, h("div", {}, h("p", {}, `Direction ${direction + 1}`), h("div", { class: "ends" }, ends[0], input, ends[1])));
}

/** Shows a creation, one of its images in large; of sliders without one, the middle. */
export function showMade(creation, image = null) {
  stop();
  current = creation;
  const sliders = creation.recipe.kind === "sliders";
  index = Math.min(image ?? (sliders ? Math.floor(creation.recipe.steps / 2) : 0), creation.n - 1);
  byId("create-empty").hidden = true;
  byId("create-results").classList.toggle("directions", sliders);
  byId("create-made").classList.toggle("wide", creation.width > 1.6 * creation.height);
  const items = sliders
    ? Array.from({ length: creation.n / creation.recipe.steps }, (_, i) => sliderItem(i))
    : creation.n > 1 ? Array.from({ length: creation.n }, (_, i) => madeItem(i)) : [];
  byId("create-results").replaceChildren(...items);
  draw();
  if (creation.note) toast(creation.note, "note");
  say(`${describe(creation.recipe)}. ${images(creation.n)}.`);
}

/** The id of the creation on show, or null. */
export const shownCreation = () => current?.id ?? null;

/** Hears when an image is kept, or no longer. */
export const whenKept = (handler) => { onkeep = handler; };

/** Stops what moves, when the view is left. */
export const rest = stop;
