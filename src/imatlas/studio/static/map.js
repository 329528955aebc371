// The zoomable map: tiles of thumbnails, and over them one point per image.
import * as api from "./api.js";
import { byId, h, guarded, perFrame, debounced, isTyping, say, images as imagesText } from "./dom.js";
import { state, on, go, openImage, brief, column } from "./state.js";
import { Grid } from "./geometry.js";
import { coloringBy, paint, themeColor } from "./colors.js";
import { connectTools } from "./lasso.js";
import { connectMinimap, drawPoints, drawViewport } from "./minimap.js";
import { drawLegend } from "./legend.js";

const SIDE = 512; // of the world, in world units
const POINTS_UNTIL = 9; // pixels of an image up to which its point is opaque
const TILES_FROM = 26; // pixels of an image from which its thumbnail can be read
const READABLE = 96; // pixels of an image when it is looked up
const MOST_FRAMES = 3000;

const { Deck, OrthographicView, TileLayer, BitmapLayer, ScatterplotLayer, PathLayer, LinearInterpolator } = globalThis.deck;

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
let hovered = -1;

const scaleNow = () => 2 ** view.zoom;
const pixelsPerImage = () => shown.slot * scaleNow();
const size = () => [stage.clientWidth, stage.clientHeight];

function unproject(x, y) {
  const [width, height] = size();
  return [view.target[0] + (x - width / 2) / scaleNow(), view.target[1] + (y - height / 2) / scaleNow()];
}

/** The row of the image at a pixel of the stage, or -1. */
function pick(x, y) {
  if (!shown) return -1;
  const [worldX, worldY] = unproject(x, y);
  const half = shown.slot / 2;
  const readable = pixelsPerImage() >= 20;
  const i = shown.grid.nearest(worldX, worldY, readable ? half * Math.SQRT2 : 10 / scaleNow());
  if (i < 0) return -1;
  const [dx, dy] = [Math.abs(shown.positions[2 * i] - worldX), Math.abs(shown.positions[2 * i + 1] - worldY)];
  return readable && Math.max(dx, dy) > half ? -1 : shown.rows[i];
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

function squareAround(row) {
  const i = shown.indexOf[row];
  const [x, y, half] = [shown.positions[2 * i], shown.positions[2 * i + 1], shown.slot / 2];
  return [[x - half, y - half], [x + half, y - half], [x + half, y + half], [x - half, y + half], [x - half, y - half]];
}

function tileLayer() {
  const { name } = shown;
  return new TileLayer({
    id: `tiles-${name}`, tileSize: SIDE, minZoom: 0, maxZoom: shown.max_zoom, extent: [0, 0, SIDE, SIDE],
    zoomOffset: Math.round(Math.log2(window.devicePixelRatio || 1)), maxRequests: 8, maxCacheSize: 300,
    getTileData: ({ index, signal }) => api.getTile(name, index.z, index.x, index.y, signal),
    onTileError: (error) => { if (error.name !== "AbortError") guarded(() => { throw error; }); },
    renderSubLayers: ({ id, data, tile }) => {
      const [[left, top], [right, bottom]] = tile.boundingBox;
      return data && new BitmapLayer({ id, image: data, bounds: [left, bottom, right, top] });
    },
  });
}

function layers() {
  const pixels = pixelsPerImage();
  const opacity = Math.max(0, Math.min(1, (TILES_FROM - pixels) / (TILES_FROM - POINTS_UNTIL)));
  const accent = themeColor("--accent");
  const framed = pixels >= 16;
  const open = state.route.image;
  tiles = tileLayer();
  const all = [
    tiles,
    new ScatterplotLayer({
      id: `points-${shown.name}`, data: points, opacity, visible: opacity > 0, radiusUnits: "common", getRadius: shown.slot * 0.46,
      radiusMinPixels: 1.4, radiusMaxPixels: 9,
    }),
    new ScatterplotLayer({
      id: "rings", data: rings, visible: !framed, filled: false, stroked: true, radiusUnits: "common", getRadius: shown.slot * 0.6,
      radiusMinPixels: 3, lineWidthUnits: "pixels", getLineWidth: rings.length > 5000 ? 1 : 1.75, getLineColor: themeColor("--ink"),
    }),
  ];
  if (framed && state.selection.size) {
    const framedRows = shown.grid.inBox(...bounds()).map((i) => shown.rows[i]).filter((row) => state.selection.has(row)).slice(0, MOST_FRAMES);
    const frame = { data: framedRows, getPath: squareAround, widthUnits: "pixels", jointRounded: true };
    all.push(new PathLayer({ ...frame, id: "frames-edge", getWidth: 6, getColor: themeColor("--paper") }));
    all.push(new PathLayer({ ...frame, id: "frames", getWidth: 3.5, getColor: accent }));
  }
  if (open !== null && shown.indexOf[open] >= 0) {
    const i = shown.indexOf[open];
    const place = [shown.positions[2 * i], shown.positions[2 * i + 1]];
    const mark = { data: [place], getPosition: (d) => d, filled: false, stroked: true, radiusUnits: "common", lineWidthUnits: "pixels", getRadius: shown.slot * 0.78, radiusMinPixels: 9, updateTriggers: { getPosition: open } };
    all.push(new ScatterplotLayer({ ...mark, id: "open-edge", getLineWidth: 7, getLineColor: themeColor("--paper") }));
    all.push(new ScatterplotLayer({ ...mark, id: "open", getLineWidth: 3, getLineColor: accent }));
  }
  return all;
}

const render = perFrame(() => {
  if (!shown || !points) return;
  deck.setProps({ layers: layers() });
  drawViewport(...bounds(), themeColor("--ink"));
  placeNames();
});

function placeNames() {
  const visible = coloring.name === "cluster" && pixelsPerImage() < TILES_FROM;
  const [width, height] = size();
  for (const name of byId("map-names").children) {
    const i = shown.indexOf[Number(name.dataset.row)];
    const x = (shown.positions[2 * i] - view.target[0]) * scaleNow() + width / 2;
    const y = (shown.positions[2 * i + 1] - view.target[1]) * scaleNow() + height / 2;
    name.hidden = !visible || i < 0 || x < 0 || y < 0 || x > width || y > height;
    name.style.transform = `translate(-50%, -50%) translate(${x}px, ${y}px)`;
  }
}

function repaint() {
  if (!shown || !coloring) return;
  colors = paint(shown.rows, coloring, leftOut, state.selection);
  points = { length: shown.rows.length, attributes: { getPosition: { value: shown.positions, size: 2 }, getFillColor: { value: colors, size: 4 } } };
  const chosen = [];
  shown.rows.forEach((row, i) => { if (state.selection.has(row)) chosen.push(shown.positions[2 * i], shown.positions[2 * i + 1]); });
  rings = { length: chosen.length / 2, attributes: { getPosition: { value: new Float32Array(chosen), size: 2 } } };
  drawPoints(shown.positions, colors);
  render();
}

async function recolor() {
  const known = state.atlas.columns.some((one) => one.name === "left_out");
  [coloring, leftOut] = await Promise.all([coloringBy(byId("color-by").value), known ? column("left_out") : []]);
  const named = state.atlas.clusters.filter((cluster) => cluster.size > 0);
  byId("map-names").replaceChildren(...named.map((cluster) => h("span", { data: { row: cluster.medoid } }, cluster.name)));
  drawLegend(coloring);
  repaint();
}

function fitted() {
  const [left, top, right, bottom] = shown.bounds;
  const [width, height] = size();
  const zoom = Math.log2(Math.min((width - 40) / (right - left || 1), (height - 40) / (bottom - top || 1)));
  return { target: [(left + right) / 2, (top + bottom) / 2, 0], zoom };
}

function limited(next) {
  const zoom = Math.max(Math.min(fitted().zoom, 0) - 1, Math.min(shown.max_zoom + 2, next.zoom));
  const target = next.target.slice(0, 2).map((value) => Math.max(0, Math.min(SIDE, value)));
  return { ...next, zoom, target: [...target, 0] };
}

function move(next, milliseconds = 350) {
  const end = limited({ ...view, ...next });
  const animated = milliseconds && !still.matches;
  if (!animated) view = { target: end.target, zoom: end.zoom };
  deck.setProps({
    initialViewState: {
      target: end.target, zoom: end.zoom, transitionDuration: animated ? milliseconds : 0,
      transitionInterpolator: new LinearInterpolator(["target", "zoom"]),
    },
  });
  render();
}

async function showLayout(name) {
  const { rows, positions } = await api.getLayout(name);
  const indexOf = new Int32Array(state.atlas.n_images).fill(-1);
  rows.forEach((row, i) => { indexOf[row] = i; });
  const description = state.atlas.layouts.find((layout) => layout.name === name);
  shown = { ...description, bounds: description.bounds ?? [0, 0, SIDE, SIDE], rows, positions, indexOf, grid: new Grid(positions, SIDE) };
  state.layout = name;
  repaint();
  move(fitted(), 0);
}

async function hover(x, y) {
  const tip = byId("map-tip");
  const row = pick(x, y);
  const [width] = size();
  tip.style.transform = `translate(${x > width - 220 ? x - 200 : x + 16}px, ${Math.max(8, y - 40)}px)`;
  if (row === hovered) return;
  hovered = row;
  canvas.classList.toggle("on-image", row >= 0);
  if (row < 0) tip.hidden = true;
  else describe(row);
}

// A pause first: a pointer on its way somewhere else should not ask for every image it passes.
const describe = debounced(async (row) => {
  if (row !== hovered) return;
  const image = await brief(row).catch(() => null);
  if (row !== hovered || !image) return;
  const tip = byId("map-tip");
  tip.replaceChildren(h("img", { src: api.thumbnail(row), alt: "" }), h("span", {}, image.key));
  tip.hidden = false;
}, 60);

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
  else if (free && event.key === "Enter") openImage(centerRow());
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
      render();
      return next;
    },
    onError: (error) => guarded(() => { throw error; }),
  });
  connectTools(stage, { pick, unproject, rowsInPolygon }, (row, event) => {
    if (row < 0) return;
    if (event.ctrlKey || event.metaKey) state.selection.toggle(row);
    else openImage(row);
  });
  connectMinimap(byId("minimap"), (x, y) => move({ target: [x, y, 0] }, 0));
  const hoverSoon = perFrame((event) => { const frame = stage.getBoundingClientRect(); hover(event.clientX - frame.left, event.clientY - frame.top); });
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") hoverSoon(event); });
  canvas.addEventListener("pointerleave", () => { hovered = -1; byId("map-tip").hidden = true; });
  document.addEventListener("keydown", onKey);
  byId("zoom-in").addEventListener("click", () => move({ zoom: view.zoom + 1 }));
  byId("zoom-out").addEventListener("click", () => move({ zoom: view.zoom - 1 }));
  byId("zoom-fit").addEventListener("click", () => move(fitted()));
  byId("color-by").addEventListener("change", () => guarded(recolor));
  byId("select-visible").addEventListener("click", () => {
    const [left, top, right, bottom] = bounds();
    state.selection.change(rowsInPolygon([[left, top], [right, top], [right, bottom], [left, bottom]]));
    say(`${imagesText(state.selection.size)} selected.`);
  });
}

function drawControls() {
  const chosen = byId("color-by").value || "cluster";
  const titles = state.atlas.columns.map((one) => h("option", { value: one.name, selected: one.name === chosen }, one.title ?? one.name.replaceAll("_", " ")));
  byId("color-by").replaceChildren(...titles);
  const buttons = state.atlas.layouts.map((layout) =>
    h("button", { type: "button", "aria-pressed": String(layout.name === shown?.name), data: { layout: layout.name, testid: `layout-${layout.name}` }, onclick: () => guarded(() => choose(layout.name)) }, layout.title));
  byId("layouts").replaceChildren(...buttons);
}

async function choose(name) {
  await showLayout(name);
  for (const button of byId("layouts").children) button.setAttribute("aria-pressed", String(button.dataset.layout === name));
}

/** Shows an image on the map, going to the map view. */
export function showOnMap(row) {
  go("map", row);
  const i = shown.indexOf[row];
  if (i >= 0) requestAnimationFrame(() => map.goTo(shown.positions[2 * i], shown.positions[2 * i + 1], Math.log2(READABLE / shown.slot)));
}

/** Starts the map on the atlas's first layout. */
export async function startMap() {
  connect();
  drawControls();
  await choose(state.atlas.layouts[0].name);
  await recolor();
  on("atlas", () => { drawControls(); guarded(recolor); });
  on("selection", repaint);
  on("theme", () => guarded(recolor));
  on("route", render);
  let before = size();
  new ResizeObserver(() => {
    const now = size();
    if (!now[0] || !now[1]) return;
    if (!before[0] || !before[1]) move(fitted(), 0);
    before = now;
    render();
  }).observe(stage);
}

/** What other modules and tests ask of the map. */
export const map = {
  centerRow,
  fit: () => move(fitted(), 0),
  goTo: (x, y, zoom, milliseconds = 0) => move({ target: [x, y, 0], zoom }, milliseconds),
  /** The place of an image in pixels of the page. */
  project(row) {
    const i = shown.indexOf[row];
    const frame = canvas.getBoundingClientRect();
    return [0, 1].map((axis) => (shown.positions[2 * i + axis] - view.target[axis]) * scaleNow() + (axis ? frame.top + frame.height / 2 : frame.left + frame.width / 2));
  },
  visibleTilesLoaded: () => Boolean(tiles?.isLoaded),
  get zoom() { return view.zoom; },
  get target() { return view.target.slice(0, 2); },
};
