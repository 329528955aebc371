// New images, made by the atlas from a place on its map.
import * as api from "./api.js";
import { byId, h, guarded, images, say, toast } from "./dom.js";
import { state, on, go, openImage, keysOf } from "./state.js";
import { map } from "./map.js";

const history = []; // newest first: {id, row, key, settings, images, sources, recipe}
let place = null; // {row, key}
let current = null; // the entry on show
let cancel = null; // of the job under way

function drawPlace() {
  byId("create-place").replaceChildren(place
    ? h("span", { class: "chip" }, h("img", { src: api.thumbnail(place.row), alt: "" }), h("span", {}, place.key))
    : h("span", { class: "hint" }, "No place chosen: the images come from anywhere on the map."));
  byId("create-anywhere").hidden = place === null;
  byId("create-open").hidden = state.route.image === null;
}

async function choosePlace(row) {
  if (row === null || row < 0) { place = null; drawPlace(); return; }
  await guarded(async () => {
    place = { row, key: (await keysOf([row]))[0] };
    drawPlace();
    say(`New images will be made from ${place.key}.`);
  });
}

function settings() {
  return { row: place?.row ?? null, cell: null, n: Number(byId("create-n").value), novelty: Number(byId("create-novelty").value), strength: null, seed: Number(byId("create-seed").value) };
}

function madeItem(source, i, entry) {
  // A source may have left the atlas since the model was learned.
  const shares = (entry.sources?.[i] ?? []).filter((one) => one.row !== null).map((one) => h("li", {}, h("button", { type: "button", onclick: () => openImage(one.row), "aria-label": `Open ${one.key}, ${Math.round(one.share * 100)} %`, title: one.key },
    h("img", { src: api.thumbnail(one.row), alt: "" }), h("span", {}, `${Math.round(one.share * 100)} %`))));
  return h("li", { class: "made", data: { testid: "made-image" } },
    h("a", { href: source, download: `${state.atlas.name}-${entry.id}-${i + 1}.png`, "aria-label": `Download new image ${i + 1}` }, h("img", { src: source, alt: `New image ${i + 1}` }), h("span", { class: "badge" }, "Download")),
    shares.length ? h("div", { class: "sources" }, h("p", {}, "Composed of"), h("ul", {}, shares)) : null);
}

function describe(entry) {
  return `${images(entry.images.length)} ${entry.key ? `from ${entry.key}` : "from anywhere"}, novelty ${entry.settings.novelty}, seed ${entry.settings.seed}`;
}

function show(entry) {
  current = entry;
  byId("create-title").textContent = describe(entry);
  byId("create-results").replaceChildren(...entry.images.map((source, i) => madeItem(source, i, entry)));
  byId("create-empty").hidden = true;
  drawHistory();
}

function recall(entry) {
  place = entry.row === null ? null : { row: entry.row, key: entry.key };
  byId("create-n").value = entry.settings.n;
  byId("create-novelty").value = entry.settings.novelty;
  byId("create-seed").value = entry.settings.seed;
  drawNovelty();
  drawPlace();
  show(entry);
}

function drawHistory() {
  byId("create-history").replaceChildren(...history.map((entry) => h("li", {},
    h("button", { type: "button", "aria-pressed": String(entry === current), onclick: () => recall(entry) },
      h("span", { class: "strip", "aria-hidden": "true" }, entry.images.slice(0, 4).map((source) => h("img", { src: source, alt: "" }))), h("span", {}, describe(entry))))));
  byId("create-earlier").hidden = !history.length;
}

async function make() {
  const wanted = settings();
  const { row, key } = place ?? { row: null, key: null };
  const bar = byId("create-progress");
  const line = byId("create-line");
  byId("create-make").disabled = true;
  byId("create-cancel").hidden = false;
  bar.hidden = false;
  bar.removeAttribute("value");
  line.textContent = "Starting…";
  try {
    const result = await api.resultOf(await api.create(wanted), (event) => {
      if (event.progress === null) bar.removeAttribute("value"); else bar.value = event.progress;
      line.textContent = event.line || "Working…";
    }, (stop) => { cancel = stop; });
    const entry = { id: history.length + 1, row, key, settings: wanted, ...result };
    history.unshift(entry);
    show(entry);
    say(`Made ${images(entry.images.length)}.`);
  } finally {
    cancel = null;
    bar.hidden = true;
    line.textContent = "";
    byId("create-make").disabled = false;
    byId("create-cancel").hidden = true;
  }
}

function drawNovelty() {
  byId("create-novelty-value").textContent = Number(byId("create-novelty").value).toFixed(2);
}

/** Goes to the view with this image as the place to create from. */
export function createFrom(row, key) {
  place = { row, key };
  go("create");
  drawPlace();
}

/** Connects the view. */
export function startCreate() {
  const possible = state.atlas.can.create;
  byId("create-form").hidden = !possible;
  byId("create-impossible").hidden = possible;
  byId("create-empty").hidden = !possible;
  byId("create-form").addEventListener("submit", (event) => { event.preventDefault(); guarded(make); });
  byId("create-cancel").addEventListener("click", () => guarded(async () => { await cancel?.(); toast("No new images were made.", "note"); }));
  byId("create-center").addEventListener("click", () => choosePlace(map.centerRow()));
  byId("create-open").addEventListener("click", () => choosePlace(state.route.image));
  byId("create-anywhere").addEventListener("click", () => choosePlace(null));
  byId("create-novelty").addEventListener("input", drawNovelty);
  byId("create-dice").addEventListener("click", () => { byId("create-seed").value = Math.floor(Math.random() * 1e6); });
  on("route", drawPlace);
  drawNovelty();
  drawPlace();
}
