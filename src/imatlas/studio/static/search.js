// Searching by examples: images of the atlas, what they should not be like, a region, a picture of one's own.
import * as api from "./api.js";
import { byId, h, guarded, closeness, images, say, toast } from "./dom.js";
import { state, on, go, keysOf, remember } from "./state.js";
import { regionPicker } from "./region.js";
import { tile } from "./tiles.js";
import { startWordSearch } from "./words.js";

const MOST_CHIPS = 24;
const K = 60;
const MOST_EXAMPLES = 100; // that the server takes

const wanted = { like: [], unlike: [], region: null, upload: null }; // region: {row, key, region}; upload: {id, name, width, height, region}
let request = null;

const isEmpty = () => !wanted.like.length && !wanted.region && !wanted.upload;

function body() {
  const { like, unlike, region, upload } = wanted;
  return { row: region?.row ?? null, upload: upload?.id ?? null, region: region?.region ?? upload?.region ?? null, like, unlike, k: K };
}

function found(sentence) {
  byId("word-names").textContent = ""; // of a search by a word before
  byId("search-found").textContent = sentence;
  byId("search-found").hidden = false;
}

function show(images, sentence) {
  remember(images);
  byId("search-results").replaceChildren(...images.map((one) => tile(one.row, one.key, { caption: one.caption ?? closeness(one.closer_than) })));
  found(sentence);
  byId("search-select").hidden = !images.length;
  byId("search-select").onclick = () => state.selection.change(images.map((one) => one.row));
  say(sentence);
}

async function run() {
  request?.abort();
  const results = byId("search-results");
  if (isEmpty()) {
    results.replaceChildren();
    found("Add something that the images should be like.");
    byId("search-found").hidden = !wanted.unlike.length;
    return;
  }
  request = new AbortController();
  const { signal } = request;
  found("Searching…");
  results.setAttribute("aria-busy", "true");
  await guarded(async () => {
    const nearest = (await api.search(body(), signal)).results;
    show(nearest, nearest.length ? `The ${images(nearest.length)} most like that` : "Nothing was found.");
  });
  if (!signal.aborted) {
    results.setAttribute("aria-busy", "false");
    if (byId("search-found").textContent === "Searching…") found("The search failed.");
  }
}

function changed() {
  drawChips();
  run();
}

function chip(source, name, remove) {
  return h("li", { class: "chip" }, source ? h("img", { src: source, alt: "" }) : null, h("span", {}, name),
    h("button", { type: "button", class: "icon", "aria-label": `Remove ${name}`, onclick: remove }, "×"));
}

function exampleChips(list) {
  const chips = wanted[list].slice(0, MOST_CHIPS).map((row) => {
    const one = chip(api.thumbnail(row), `image ${row}`, () => { wanted[list] = wanted[list].filter((other) => other !== row); changed(); });
    guarded(async () => {
      const [key] = await keysOf([row]);
      one.querySelector("span").textContent = key;
      one.querySelector("button").setAttribute("aria-label", `Remove ${key}`);
    });
    return one;
  });
  const more = wanted[list].length - MOST_CHIPS;
  if (more > 0) chips.push(chip(null, `and ${images(more)} more`, () => { wanted[list].length = MOST_CHIPS; changed(); }));
  return chips;
}

function drawChips() {
  const like = exampleChips("like");
  const { region, upload } = wanted;
  if (region) like.unshift(chip(api.thumbnail(region.row), `a part of ${region.key}`, () => { wanted.region = null; changed(); }));
  if (upload) like.unshift(chip(api.uploaded(upload.id), upload.region ? `a part of ${upload.name}` : upload.name, removeUpload));
  byId("chips-like").replaceChildren(...like);
  byId("chips-unlike").replaceChildren(...exampleChips("unlike"));
  byId("search-like").hidden = !like.length;
  byId("search-unlike").hidden = !wanted.unlike.length;
  byId("search-clear").hidden = isEmpty() && !wanted.unlike.length;
  byId("search-intro").hidden = !isEmpty() || wanted.unlike.length > 0;
}

function removeUpload() {
  wanted.upload = null;
  byId("search-own").replaceChildren();
  changed();
}

async function takeFile(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) { toast(`${file.name} is not a picture.`); return; }
  say(`Reading ${file.name}.`);
  await guarded(async () => {
    const stored = await api.upload(file);
    wanted.upload = { ...stored, name: file.name, region: null };
    wanted.region = null;
    const picker = regionPicker(api.uploaded(stored.id), file.name, stored, (region) => {
      if (!wanted.upload) return;
      wanted.upload.region = region;
      changed();
    });
    picker.frame.dataset.testid = "upload-picture";
    byId("search-own").replaceChildren(picker.element, h("p", { class: "hint" }, "Draw a rectangle on it to search for that part only."));
    changed();
  });
}

/** Both lists without repetition; of too many an even sample, which says as much of what they have in common. */
function union(rows, others) {
  const all = [...new Set([...rows, ...others])];
  if (all.length <= MOST_EXAMPLES) return all;
  toast(`The search uses ${MOST_EXAMPLES} of the ${images(all.length)} as examples.`, "note");
  return Array.from({ length: MOST_EXAMPLES }, (_, i) => all[Math.floor((i * all.length) / MOST_EXAMPLES)]);
}

/** Searches for images like these; with `add`, besides what is already searched for. */
export function likeThese(rows, add = false) {
  if (!add) Object.assign(wanted, { like: [], unlike: [], region: null, upload: null });
  if (!add) byId("search-own").replaceChildren();
  wanted.like = union(wanted.like, rows);
  wanted.unlike = wanted.unlike.filter((row) => !rows.includes(row));
  go("search");
  changed();
}

/** Searches for images that are not like these, besides what is already searched for. */
export function unlikeThese(rows) {
  wanted.unlike = union(wanted.unlike, rows);
  wanted.like = wanted.like.filter((row) => !rows.includes(row));
  go("search");
  changed();
}

/** Searches for what a part of an image shows. */
export function searchRegion(region) {
  Object.assign(wanted, { region, like: [], unlike: [], upload: null });
  byId("search-own").replaceChildren();
  go("search");
  changed();
}

/** Connects the search view. */
export function startSearch() {
  const zone = byId("drop-zone");
  byId("search-file").addEventListener("change", (event) => { takeFile(event.target.files[0]); event.target.value = ""; });
  const over = (event) => { event.preventDefault(); zone.classList.toggle("over", event.type === "dragover"); };
  // A file dropped beside the zone must not replace the studio by the picture.
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  zone.addEventListener("dragover", over);
  zone.addEventListener("dragleave", over);
  zone.addEventListener("drop", (event) => { over(event); takeFile(event.dataTransfer.files[0]); });
  byId("search-clear").addEventListener("click", () => {
    Object.assign(wanted, { like: [], unlike: [], region: null });
    removeUpload();
    byId("search-select").hidden = true;
  });
  startWordSearch(show);
  on("route", () => { if (state.route.view === "search") drawChips(); });
}
