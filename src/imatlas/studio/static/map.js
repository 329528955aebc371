// The zoomable map: tiles of thumbnails, and over them one point per image.
import * as api from "./api.js";
import { byId, h, guarded, perFrame, isTyping, say, images as imagesText } from "./dom.js";
import { state, on, emit, go, openImage, column } from "./state.js";
import { Grid, shuffled } from "./geometry.js";
import { coloringBy, paint, themeColor } from "./colors.js";
import { Budget } from "./points.js";
import { tileLayer, pointLayer, coloredFrames, selectionLayers, openLayers, pointOpacity, meansPoints, pictureSide } from "./layers.js";
import { connectTools, chosenTool } from "./lasso.js";
import { connectMinimap, drawPoints, drawViewport } from "./minimap.js";
import { drawLegend } from "./legend.js";
import { drawNames, placeNames, showTip, hideTip } from "./overlays.js";

const SIDE = 512; // of the world, in world units
const READABLE = 96; // pixels of an image when it is looked up
const LONG = 3000; // milliseconds

const { Deck, OrthographicView, LinearInterpolator } = globalThis.deck;

const stage = byId("map-stage");
const canvas = byId("map-canvas");
const still = matchMedia("(prefers-reduced-motion: reduce)");

let deck = null;
let view = { target: [SIDE / 2, SIDE / 2, 0], zoom: 0 };
let shown = null; // {name, rows, positions, indexOf, grid, slot, ...} of the layout on the canvas
let coloring = null;
let leftOut = null;
let colors = null;
let points = null; // what deck.gl gets of the points: kept as one object, so that it is uploaded once
let rings = null;
let tiles = null;
let openPicture = { row: null, bitmap: null };
let lastSize = [1000, 700];
let rank = []; // of several images that share a place from afar, the tiles show the one of the least rank
let moving = false;
let resting = 0;
let seen = null; // called once all tiles that are seen are there
const firstTiles = new Promise((done) => { seen = done; });
const budget = new Budget();

const scaleNow = () => 2 ** view.zoom;
const pixelsPerImage = () => shown.slot * scaleNow();

/** Width and height of the stage, while it is hidden those it had before. */
function size() {
  if (stage.clientWidth && stage.clientHeight) lastSize = [stage.clientWidth, stage.clientHeight];
  return lastSize;
}

function unproject(x, y) {
  const [width, height] = size();
  return [view.target[0] + (x - width / 2) / scaleNow(), view.target[1] + (y - height / 2) / scaleNow()];
}

/** The row of the image at a pixel of the stage, or -1: of the nearest point, or of the picture where points have faded. */
function pick(x, y) {
  if (!shown) return -1;
  const [worldX, worldY] = unproject(x, y);
  if (meansPoints(pixelsPerImage())) {
    const i = shown.grid.nearest(worldX, worldY, Math.max(10 / scaleNow(), shown.slot / 2));
    return i < 0 ? -1 : shown.rows[i];
  }
  const side = pictureSide(shown, view.zoom);
  const [left, top] = [Math.floor(worldX / side) * side, Math.floor(worldY / side) * side];
  const rows = shown.grid.inBox(left, top, left + side, top + side).map((i) => shown.rows[i]);
  return rows.reduce((best, row) => (best < 0 || rank[row] < rank[best] ? row : best), -1);
}

const rowsInPolygon = (polygon) => shown.grid.inPolygon(polygon).map((i) => shown.rows[i]);

function bounds() {
  const [left, top] = unproject(0, 0);
  const [right, bottom] = unproject(...size());
  return [left, top, right, bottom];
}

/** The row of the image nearest to the center of the map, or -1. */
function centerRow() {
  if (!shown) return -1;
  for (let distance = shown.slot; distance < 2 * SIDE; distance *= 2) {
    const i = shown.grid.nearest(view.target[0], view.target[1], distance);
    if (i >= 0) return shown.rows[i];
  }
  return -1;
}

function layers() {
  const pixels = pixelsPerImage();
  const [width, height] = size();
  const most = moving ? budget.next(points.length) : points.length;
  tiles = tileLayer(shown, pixels, deck.device, seen);
  return [
    tiles,
    pointLayer(shown, points, pixels, width * height, most),
    ...coloredFrames(shown, colors, pixels, bounds()),
    ...selectionLayers(shown, rings, pixels, bounds(), state.selection, most),
    ...openLayers(shown, state.route.image, scaleNow(), openPicture.row === state.route.image ? openPicture.bitmap : null),
  ];
}

const render = perFrame(() => {
  if (!shown || !points || !stage.clientWidth) return;
  deck.setProps({ layers: layers() });
  if (moving) {
    clearTimeout(resting);
    resting = setTimeout(() => { moving = false; render(); }, 150 + 2 * budget.frame);
  }
  drawViewport(...bounds(), themeColor("--ink"));
  placeNames(coloring.name === "cluster" && pointOpacity(pixelsPerImage()) > 0.2, place, size());
});

/** A frame in motion may leave points out; they are back once the map rests. */
function renderMoving() {
  // No rest may come between this movement and its frame, or slow machines would draw all points in every frame.
  clearTimeout(resting);
  moving = true;
  render();
}

/** The pixel of the stage that an image is at, or null if the layout does not have it. */
function place(row) {
  const i = shown.indexOf[row];
  return i < 0 ? null : size().map((pixels, axis) => (shown.positions[2 * i + axis] - view.target[axis]) * scaleNow() + pixels / 2);
}

function ringsAround() {
  const places = new Float32Array(2 * state.selection.size);
  let n = 0;
  for (let i = 0; i < shown.rows.length; i++) {
    if (state.selection.has(shown.rows[i])) places.set(shown.positions.subarray(2 * i, 2 * i + 2), 2 * n++);
  }
  const [red, green, blue] = themeColor("--ink");
  const ink = new Uint32Array(n).fill((255 << 24) | (blue << 16) | (green << 8) | red);
  return { length: n, attributes: { getPosition: { value: places, size: 2 }, getColor: { value: new Uint8Array(ink.buffer), size: 4, normalized: true } } };
}

function repaint() {
  if (!shown || !coloring) return;
  colors = paint(shown.rows, coloring, leftOut, state.selection);
  points = { length: shown.rows.length, attributes: { getPosition: { value: shown.positions, size: 2 }, getColor: { value: colors, size: 4, normalized: true } } };
  rings = ringsAround();
  drawPoints(shown.positions, colors, shown.bounds);
  render();
}

async function recolor() {
  const known = state.atlas.columns.some((one) => one.name === "left_out");
  [coloring, leftOut, rank] = await Promise.all([coloringBy(byId("color-by").value), known ? column("left_out") : [], column("outlier")]);
  drawNames(state.atlas.clusters);
  drawLegend(coloring);
  repaint();
}

/** The whole layout in the part of the stage that the controls leave free. */
function fitted() {
  const [left, top, right, bottom] = shown.bounds;
  const [width, height] = size();
  const free = width > 820 ? { left: 280, top: 64, right: 44, bottom: 24 } : { left: 12, top: 64, right: 12, bottom: 12 };
  const scale = Math.min((width - free.left - free.right) / (right - left || 1), (height - free.top - free.bottom) / (bottom - top || 1));
  const target = [(left + right - (free.left - free.right) / scale) / 2, (top + bottom - (free.top - free.bottom) / scale) / 2, 0];
  return { target, zoom: Math.log2(scale) };
}

function limited(next) {
  const zoom = Math.max(Math.min(fitted().zoom, 0) - 1, Math.min(shown.max_zoom + 2, next.zoom));
  const [left, top, right, bottom] = shown.bounds;
  const [width, height] = size().map((pixels) => pixels / 2 ** zoom / 2);
  // Some of the layout stays in view, wherever one pans.
  const x = Math.max(left - width * 0.8, Math.min(right + width * 0.8, next.target[0]));
  const y = Math.max(top - height * 0.8, Math.min(bottom + height * 0.8, next.target[1]));
  return { ...next, zoom, target: [x, y, 0] };
}

function move(next, milliseconds = 350) {
  const end = limited({ ...view, ...next });
  const animated = milliseconds && !still.matches;
  hideTip();
  if (!animated) view = { target: end.target, zoom: end.zoom };
  deck.setProps({
    initialViewState: {
      target: end.target, zoom: end.zoom, transitionDuration: animated ? milliseconds : 0,
      transitionInterpolator: new LinearInterpolator(["target", "zoom"]),
    },
  });
  renderMoving();
}

async function showLayout(name, loading = api.getLayout(name)) {
  const { rows, positions } = shuffled(await loading);
  const indexOf = new Int32Array(state.atlas.n_images).fill(-1);
  rows.forEach((row, i) => { indexOf[row] = i; });
  const description = state.atlas.layouts.find((layout) => layout.name === name);
  shown = { ...description, bounds: description.bounds ?? [0, 0, SIDE, SIDE], rows, positions, indexOf, grid: new Grid(positions, SIDE) };
  state.layout = name;
  repaint();
  move(fitted(), 0);
}

/** Keeps what is on the left where it is when the stage changes its width, and the open image in view. */
function onResize(before, now) {
  const shift = [0, 1].map((axis) => (now[axis] - before[axis]) / scaleNow() / 2);
  const target = [view.target[0] + shift[0], view.target[1] + shift[1]];
  const i = state.route.image === null ? -1 : shown.indexOf[state.route.image];
  if (i >= 0) {
    for (const axis of [0, 1]) {
      const half = now[axis] / scaleNow() / 2;
      const place = shown.positions[2 * i + axis];
      const was = Math.abs(place - view.target[axis]) <= before[axis] / scaleNow() / 2;
      if (was) target[axis] = Math.max(place - half * 0.85, Math.min(place + half * 0.85, target[axis]));
    }
  }
  move({ target }, 0);
}

function hover(x, y) {
  const row = pick(x, y);
  canvas.classList.toggle("on-image", row >= 0);
  showTip(row, x, y, size());
}

/** What a click does with an image: the tool "create" makes new ones at its place, all others open it. */
function take(row, at) {
  if (chosenTool() === "create") emit("place", { row, at });
  else if (row >= 0) openImage(row);
}

function onKey(event) {
  if (state.route.view !== "map" || isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  const free = event.target === canvas || event.target === document.body;
  const far = (0.2 * Math.min(...size())) / scaleNow();
  const [x, y] = view.target;
  const pans = { ArrowLeft: [x - far, y], ArrowRight: [x + far, y], ArrowUp: [x, y - far], ArrowDown: [x, y + far] };
  if (free && pans[event.key]) move({ target: pans[event.key] }, 120);
  else if (event.key === "+" || event.key === "=") move({ zoom: view.zoom + 0.5 }, 160);
  else if (event.key === "-") move({ zoom: view.zoom - 0.5 }, 160);
  else if (event.key === "0") move(fitted());
  else if (free && event.key === "Enter") take(centerRow(), size().map((pixels) => pixels / 2));
  else return;
  event.preventDefault();
}

function connect() {
  deck = new Deck({
    canvas, width: "100%", height: "100%", useDevicePixels: Math.min(2, window.devicePixelRatio || 1),
    views: new OrthographicView({ id: "map", controller: { doubleClickZoom: false, keyboard: false, inertia: still.matches ? 0 : 250, scrollZoom: { speed: 0.008 } } }),
    initialViewState: view,
    onViewStateChange: ({ viewState }) => {
      const next = limited(viewState);
      view = { target: next.target, zoom: next.zoom };
      hideTip();
      renderMoving();
      return next;
    },
    onError: (error) => guarded(() => { throw error; }),
  });
  connectTools(stage, { pick, unproject, rowsInPolygon }, (row, event) => {
    hideTip();
    if (row >= 0 && (event.ctrlKey || event.metaKey)) state.selection.toggle(row);
    else { const frame = stage.getBoundingClientRect(); take(row, [event.clientX - frame.left, event.clientY - frame.top]); }
  });
  connectMinimap(byId("minimap"), (x, y) => move({ target: [x, y, 0] }, 0));
  const hoverSoon = perFrame((event) => { const frame = stage.getBoundingClientRect(); hover(event.clientX - frame.left, event.clientY - frame.top); });
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") hoverSoon(event); });
  canvas.addEventListener("pointerleave", hideTip);
  document.addEventListener("keydown", onKey);
  byId("zoom-in").addEventListener("click", () => move({ zoom: view.zoom + 1 }));
  byId("zoom-out").addEventListener("click", () => move({ zoom: view.zoom - 1 }));
  byId("zoom-fit").addEventListener("click", () => move(fitted()));
  byId("color-by").addEventListener("change", () => guarded(recolor));
  byId("show-points").addEventListener("change", render);
  byId("select-visible").addEventListener("click", () => {
    const [left, top, right, bottom] = bounds();
    state.selection.change(rowsInPolygon([[left, top], [right, top], [right, bottom], [left, bottom]]));
    say(`${imagesText(state.selection.size)} selected.`);
  });
}

async function loadOpenPicture() {
  const row = state.route.image;
  if (row === null || row === openPicture.row) return;
  openPicture = { row, bitmap: null };
  const bitmap = await api.getSquare(row).catch(() => null);
  if (openPicture.row === row) openPicture = { row, bitmap };
  render();
}

function drawControls() {
  const chosen = byId("color-by").value || "cluster";
  const titles = state.atlas.columns.map((one) => h("option", { value: one.name, selected: one.name === chosen }, one.title ?? one.name.replaceAll("_", " ")));
  byId("color-by").replaceChildren(...titles);
  const buttons = state.atlas.layouts.map((layout) =>
    h("button", { type: "button", "aria-pressed": String(layout.name === shown?.name), data: { layout: layout.name, testid: `layout-${layout.name}` }, onclick: () => guarded(() => choose(layout.name)) }, layout.title));
  byId("layouts").replaceChildren(...buttons);
}

async function choose(name, loading) {
  await showLayout(name, loading);
  for (const button of byId("layouts").children) button.setAttribute("aria-pressed", String(button.dataset.layout === name));
}

/** Colors the map by a column. */
export function colorBy(name) {
  byId("color-by").value = name;
  guarded(recolor);
}

/** Shows an image on the map, going to the map view. */
export function showOnMap(row) {
  go("map", row);
  const i = shown.indexOf[row];
  if (i >= 0) requestAnimationFrame(() => map.goTo(shown.positions[2 * i], shown.positions[2 * i + 1], Math.log2(READABLE / shown.slot)));
}

/** Until the map shows its first view, or takes long to. */
export const firstView = () => Promise.race([firstTiles, new Promise((done) => setTimeout(done, LONG))]);

/** Makes the canvas, which takes long without a graphics card, while the layout is on its way. */
export const prepareMap = () => connect();

/** Starts the map on the atlas's first layout. */
export async function startMap() {
  const first = state.atlas.layouts[0].name;
  const loading = api.getLayout(first);
  for (const name of ["cluster", "outlier"]) column(name).catch(() => null); // `recolor` tells of errors
  if (matchMedia("(min-width: 601px) and (max-width: 820px)").matches) document.querySelector(".legend").open = false;
  drawControls();
  await choose(first, loading);
  await recolor();
  on("atlas", () => { drawControls(); guarded(recolor); });
  on("selection", repaint);
  on("theme", () => guarded(recolor));
  on("route", () => { render(); loadOpenPicture(); });
  loadOpenPicture();
  let before = size();
  new ResizeObserver(() => {
    if (!stage.clientWidth) return;
    onResize(before, size());
    before = size();
  }).observe(stage);
}

/** What other modules and tests ask of the map. */
export const map = {
  centerRow,
  fit: () => move(fitted(), 0),
  goTo: (x, y, zoom, milliseconds = 0) => move({ target: [x, y, 0], zoom }, milliseconds),
  /** The place of an image in pixels of the page. */
  project(row) {
    const frame = canvas.getBoundingClientRect();
    const [x, y] = place(row);
    return [frame.left + x, frame.top + y];
  },
  visibleTilesLoaded: () => Boolean(tiles?.isLoaded),
  get zoom() { return view.zoom; },
  get target() { return view.target.slice(0, 2); },
};
