// All images in a grid of which only the visible part exists: a million rows cost as little as a hundred.
import * as api from "./api.js";
import { byId, h, guarded, debounced, perFrame, images, say, short } from "./dom.js";
import { state, on, isMoved, go, openImage, remember } from "./state.js";
import { checkbox } from "./tiles.js";
import { offerExport } from "./exports.js";

const PAGE = 200;
const MOST_PAGES = 60;
const TALLEST = 8e6; // pixels; browsers give up on much taller elements
const MOST_ROWS = 700; // that fit into an address
const CAPTION = 46; // pixels below a picture
const GAP = 14;

const scroller = byId("gallery-scroll");
const spacer = byId("gallery-spacer");
const grid = byId("gallery-grid");

let pages = new Map(); // number -> images, or the promise of them
let stale = new Map(); // as they were before the last decision: shown until the new ones are here
let total = 0;
let generation = 0; // of the filters: answers to older ones are dropped
let chosenRows = null; // the rows of "Show in gallery"
let focused = 0; // the index that the keyboard is at
let anchor = null; // the index where a range of selections begins
let columns = 1;
let line = 100; // height of a line of tiles

function filters() {
  const form = new FormData(byId("gallery-filters"));
  const [sort, descending] = form.get("sort").split("-");
  return {
    sort, descending: descending === "down", cluster: form.get("cluster"), label: form.get("label"), flag: form.get("flag"),
    text: form.get("text").trim(), left_out: form.get("left_out"),
  };
}

/** Filters that are set, for the body of a request. */
const known = (all) => Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null && value !== ""));

// Rows that are too many for an address are paged here, in the order of the atlas.
const pagedHere = () => chosenRows !== null && chosenRows.length > MOST_ROWS;

async function fetchPage(number) {
  if (pagedHere()) {
    const rows = chosenRows.slice(number * PAGE, (number + 1) * PAGE);
    const answer = await api.getImages({ rows: rows.join(","), limit: PAGE });
    const byRow = new Map(answer.images.map((image) => [image.row, image]));
    return { total: chosenRows.length, images: rows.map((row) => byRow.get(row)) };
  }
  return api.getImages({ ...filters(), rows: chosenRows?.join(","), offset: number * PAGE, limit: PAGE });
}

function page(number) {
  const known = pages.get(number);
  if (known) return known;
  const mine = generation;
  const promise = guarded(async () => {
    const answer = await fetchPage(number);
    if (mine !== generation) return;
    remember(answer.images.filter(Boolean));
    pages.set(number, answer.images);
    if (pages.size > MOST_PAGES) pages.delete(pages.keys().next().value);
    if (answer.total !== total || number === 0) {
      total = answer.total;
      byId("gallery-total").textContent = images(total);
      layOut();
    }
    draw();
  });
  pages.set(number, promise);
  // A page that failed is asked for again when it is next seen.
  promise.then(() => { if (pages.get(number) === promise) pages.delete(number); });
  return promise;
}

const at = (index) => {
  const number = Math.floor(index / PAGE);
  const known = page(number);
  return (Array.isArray(known) ? known : stale.get(number))?.[index % PAGE];
};

async function reload() {
  generation++;
  pages = new Map();
  stale = new Map();
  focused = 0;
  anchor = null;
  scroller.scrollTop = 0;
  byId("gallery-chosen").hidden = chosenRows === null;
  byId("gallery-chosen-text").textContent = chosenRows === null ? "" : `Only the ${images(chosenRows.length)} selected${pagedHere() ? ", in the order of the atlas" : ""}.`;
  for (const field of byId("gallery-filters").elements) field.disabled = pagedHere();
  await page(0);
  say(`${images(total)} in the gallery.`);
}

function layOut() {
  const width = spacer.clientWidth;
  if (!width) return;
  const side = Number(byId("gallery-size").value);
  columns = Math.max(1, Math.floor((width + GAP) / (side + GAP)));
  line = Math.floor((width - GAP * (columns - 1)) / columns) + CAPTION;
  const height = Math.ceil(total / columns) * line;
  spacer.style.height = `${Math.min(TALLEST, height)}px`;
  grid.style.setProperty("--columns", columns);
  grid.setAttribute("aria-rowcount", Math.ceil(total / columns));
  grid.setAttribute("aria-colcount", columns);
}

// How far down the whole grid one is, and the other way round: in a very tall grid the scroll bar stands for more than its pixels.
function stretch() {
  const height = Math.ceil(total / columns) * line;
  const seen = scroller.clientHeight;
  return height <= TALLEST ? 1 : (height - seen) / (TALLEST - seen);
}

function cell(index) {
  const image = at(index);
  if (!image) return h("div", { role: "gridcell", class: "tile waiting", data: { index } });
  const { row, key } = image;
  const tabIndex = index === focused ? 0 : -1;
  const open = h("button", { type: "button", class: "tile-open", tabIndex, "aria-label": `Open ${key}`, title: key, data: { row }, onclick: (event) => pressed(event, index, row) },
    h("img", { src: api.thumbnail(row), alt: "", decoding: "async" }));
  const check = checkbox(row, key, { tabIndex: -1, onclick: (event) => { if (event.shiftKey) event.preventDefault(); choose(index, row, event.shiftKey); }, onchange: null });
  const words = [image.label, image.left_out ? "left out" : null, isMoved(row) ? "moved to the trash" : null, filters().sort === "outlier" ? short(image.outlier) : null].filter(Boolean).join(" · ");
  return h("div", { role: "gridcell", class: `tile${image.left_out ? " left-out" : ""}${isMoved(row) ? " moved" : ""}`, "aria-selected": String(state.selection.has(row)), data: { index, row } },
    h("div", { class: "tile-picture" }, open, check), h("p", { class: "caption" }, h("span", { class: "key" }, key), h("span", {}, words)));
}

function draw() {
  if (state.route.view !== "gallery") return;
  const top = scroller.scrollTop * stretch();
  const first = Math.max(0, Math.floor(top / line) - 1);
  const last = Math.min(Math.ceil(total / columns), Math.ceil((top + scroller.clientHeight) / line) + 1);
  const hadFocus = grid.contains(document.activeElement);
  const lines = [];
  for (let number = first; number < last; number++) {
    const cells = [];
    for (let index = number * columns; index < Math.min(total, (number + 1) * columns); index++) cells.push(cell(index));
    lines.push(h("div", { role: "row", "aria-rowindex": number + 1, class: "gallery-row" }, cells));
  }
  grid.replaceChildren(...lines);
  grid.style.transform = `translateY(${scroller.scrollTop - top + first * line}px)`;
  if (!grid.querySelector('[tabindex="0"]')) grid.querySelector(".tile-open")?.setAttribute("tabindex", "0");
  if (hadFocus) grid.querySelector(`[data-index="${focused}"] .tile-open`)?.focus({ preventScroll: true });
  byId("gallery-none").hidden = total > 0;
  byId("gallery-export").disabled = total === 0;
}

const drawSoon = perFrame(draw);

/** Selects the images between two indexes, loading what is in between. */
async function selectRange(from, to) {
  const [low, high] = [Math.min(from, to), Math.max(from, to)];
  const rows = [];
  for (let number = Math.floor(low / PAGE); number <= Math.floor(high / PAGE); number++) {
    await page(number);
    const known = pages.get(number);
    if (!Array.isArray(known)) return;
    rows.push(...known.filter((image, i) => image && number * PAGE + i >= low && number * PAGE + i <= high).map((image) => image.row));
  }
  state.selection.change(rows, "add");
  say(`${images(state.selection.size)} selected.`);
}

function choose(index, row, range) {
  if (range && anchor !== null) selectRange(anchor, index);
  else { anchor = index; state.selection.toggle(row); }
}

function pressed(event, index, row) {
  focused = index;
  if (event.shiftKey || event.ctrlKey || event.metaKey) choose(index, row, event.shiftKey);
  else openImage(row);
}

function focusOn(index) {
  focused = Math.max(0, Math.min(total - 1, index));
  const top = Math.floor(focused / columns) * line;
  const seen = scroller.scrollTop * stretch();
  if (top < seen) scroller.scrollTop = top / stretch();
  else if (top + line > seen + scroller.clientHeight) scroller.scrollTop = (top + line - scroller.clientHeight) / stretch();
  draw();
  grid.querySelector(`[data-index="${focused}"] .tile-open`)?.focus({ preventScroll: true });
}

function onKey(event) {
  const from = event.target.closest("[data-index]");
  if (!from || !total) return;
  const index = Number(from.dataset.index);
  const perScreen = Math.max(1, Math.floor(scroller.clientHeight / line)) * columns;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -perScreen, PageDown: perScreen, Home: -total, End: total };
  if (event.key in steps) focusOn(index + steps[event.key]);
  else if (event.key === " " && from.dataset.row) choose(index, Number(from.dataset.row), event.shiftKey);
  else return;
  event.preventDefault();
}

function fill(select, first, options) {
  const before = select.value;
  select.replaceChildren(h("option", { value: "" }, first), ...options.map(([value, text]) => h("option", { value }, text)));
  select.value = options.some(([value]) => String(value) === before) ? before : "";
}

function drawFilters() {
  const { clusters, labels, columns: described } = state.atlas;
  fill(byId("filter-cluster"), "All clusters", clusters.filter((cluster) => cluster.size).map((cluster) => [cluster.id, cluster.name]));
  fill(byId("filter-label"), "All labels", labels.map(({ label, count }) => [label, `${label} (${count})`]));
  fill(byId("filter-flag"), "All flags", (described.find((one) => one.name === "flag")?.values ?? []).map((flag) => [flag, flag]));
}

/** Shows only these selected images in the gallery, until none is selected; null shows all. */
export function showRows(rows) {
  chosenRows = rows;
  reload();
}

/** Shows the images of a cluster in the gallery, and nothing else. */
export function showCluster(id) {
  byId("gallery-filters").reset();
  byId("filter-cluster").value = id;
  showRows(null);
  go("gallery");
}

/** Connects the gallery. */
export function startGallery() {
  const form = byId("gallery-filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", debounced(reload, 200));
  byId("gallery-size").addEventListener("input", () => { layOut(); drawSoon(); });
  byId("gallery-export").addEventListener("click", () => offerExport(pagedHere() ? { rows: chosenRows } : { filters: { ...known(filters()), rows: chosenRows } }, total));
  byId("gallery-all").addEventListener("click", () => showRows(null));
  scroller.addEventListener("scroll", drawSoon);
  grid.addEventListener("keydown", onKey);
  new ResizeObserver(() => { layOut(); drawSoon(); }).observe(spacer);
  on("atlas", () => { drawFilters(); generation++; stale = pages; pages = new Map(); drawSoon(); });
  on("selection", () => {
    if (chosenRows !== null && !state.selection.size) showRows(null); // the list was that of the selection
    for (const one of grid.querySelectorAll("[data-row][aria-selected]")) one.setAttribute("aria-selected", String(state.selection.has(Number(one.dataset.row))));
  });
  on("route", () => { if (state.route.view === "gallery") { layOut(); if (!total && !pages.size) reload(); else drawSoon(); } });
  drawFilters();
}
