// The deck.gl layers of the map: tiles of pictures, a point per image, and frames around what is selected or open.
import * as api from "./api.js";
import { byId, guarded } from "./dom.js";
import { themeColor } from "./colors.js";
import { DotLayer } from "./points.js";

const SIDE = 512; // of the world, in world units
const TILE_CELLS = 8; // pictures along a tile where each takes as little room as it may
const POINTS_UNTIL = 12; // pixels of an image up to which its point is opaque
const TILES_FROM = 36; // pixels of an image from which its picture can be read
const FRAMES_FROM = 16; // pixels of an image from which a frame fits around it
const MOST_FRAMES = 3000;
const SMOOTH = { minFilter: "linear", magFilter: "linear", addressModeU: "clamp-to-edge", addressModeV: "clamp-to-edge" };

const { TileLayer, BitmapLayer, PathLayer } = globalThis.deck;

const tileOffset = () => Math.round(Math.log2(window.devicePixelRatio || 1));

/** How opaque the points are where an image takes so many pixels. */
export function pointOpacity(pixels) {
  const wish = byId("show-points").value;
  if (wish !== "far") return wish === "always" ? 1 : 0;
  return Math.max(0, Math.min(1, (TILES_FROM - pixels) / (TILES_FROM - POINTS_UNTIL)));
}

/** Whether a pointer means the points and not the pictures below them. */
export const meansPoints = (pixels) => pixels < TILES_FROM && pointOpacity(pixels) > 0.5;

/** The side in the world of one picture on the tiles: from afar, one stands for several images. */
export function pictureSide(layout, zoom) {
  const level = Math.max(0, Math.min(layout.max_zoom, Math.ceil(zoom) + tileOffset()));
  return Math.max(layout.slot, SIDE / TILE_CELLS / 2 ** level);
}

/** A picture on the graphics card, in one size only: deck.gl would make smaller ones too, and wait for the card to say that it can. */
async function texture(device, loading) {
  const bitmap = await loading;
  if (!bitmap) return null;
  const { width, height } = bitmap;
  return device.createTexture({ data: bitmap, width, height, mipLevels: 1, sampler: SMOOTH });
}

/** The tiles of a layout, paler where points are over them; `onLoaded` hears when all that are seen are there. */
export function tileLayer(layout, pixels, device, onLoaded) {
  return new TileLayer({
    id: `tiles-${layout.name}`, tileSize: SIDE, minZoom: 0, maxZoom: layout.max_zoom, extent: [0, 0, SIDE, SIDE],
    opacity: byId("show-points").value === "far" ? 1 - 0.75 * pointOpacity(pixels) : 1,
    zoomOffset: tileOffset(), maxRequests: 8, maxCacheSize: 300,
    getTileData: ({ index, signal }) => texture(device, api.getTile(layout.name, index.z, index.x, index.y, signal)),
    onTileUnload: (tile) => tile.content?.destroy(),
    onViewportLoad: onLoaded,
    onTileError: (error) => guarded(() => { throw error; }),
    renderSubLayers: ({ id, data, tile, opacity }) => {
      const [[left, top], [right, bottom]] = tile.boundingBox;
      return data && new BitmapLayer({ id, opacity, image: data, bounds: [left, bottom, right, top] });
    },
  });
}

/** One point per image; at least so large that few points can still be seen on a large stage. */
export function pointLayer(layout, points, pixels, area, most) {
  const opacity = pointOpacity(pixels);
  const least = Math.max(3, Math.min(8, 0.24 * Math.sqrt(area / points.length)));
  return new DotLayer({ id: `points-${layout.name}`, data: points, opacity, visible: opacity > 0, most, size: Math.max(least, Math.min(14, pixels * 0.92)) });
}

function squareAround(layout, row, half) {
  const i = layout.indexOf[row];
  const [x, y] = [layout.positions[2 * i], layout.positions[2 * i + 1]];
  return [[x - half, y - half], [x + half, y - half], [x + half, y + half], [x - half, y + half], [x - half, y - half]];
}

/** A frame on an edge of paper, which keeps it visible over any picture. */
function frames(id, layout, rows, half, width, color) {
  const frame = { data: rows, getPath: (row) => squareAround(layout, row, half), widthUnits: "pixels", jointRounded: true, updateTriggers: { getPath: half } };
  return [new PathLayer({ ...frame, id: `${id}-edge`, getWidth: 2 * width, getColor: themeColor("--paper") }), new PathLayer({ ...frame, id, getWidth: width, getColor: color })];
}

/** Thin frames in the colors of the points, where the pictures have taken their place. */
export function coloredFrames(layout, colors, pixels, bounds) {
  if (byId("show-points").value !== "far" || pixels < TILES_FROM) return [];
  const [left, top, right, bottom] = bounds;
  const half = layout.slot / 2;
  const data = layout.grid.inBox(left - half, top - half, right + half, bottom + half).slice(0, MOST_FRAMES);
  return [new PathLayer({
    id: "colored-frames", data, getPath: (i) => squareAround(layout, layout.rows[i], layout.slot * 0.48), getColor: (i) => [...colors.subarray(4 * i, 4 * i + 4)],
    widthUnits: "pixels", getWidth: Math.max(1.5, Math.min(4, pixels / 40)), jointRounded: true,
  })];
}

/** Rings around the selected points from afar, frames around the selected pictures near by. */
export function selectionLayers(layout, rings, pixels, bounds, selection, most) {
  const framed = pixels >= FRAMES_FROM;
  const size = Math.max(8, pixels * 1.3);
  const ringLayer = new DotLayer({ id: "rings", data: rings, visible: !framed && rings.length > 0, size, hole: 1 - 4.5 / size, most });
  if (!framed || !selection.size) return [ringLayer];
  const rows = layout.grid.inBox(...bounds).map((i) => layout.rows[i]).filter((row) => selection.has(row)).slice(0, MOST_FRAMES);
  return [ringLayer, ...frames("frames", layout, rows, layout.slot / 2, 3.5, themeColor("--accent"))];
}

/** The frame of the open image, and its own picture in it: on the tiles, another may lie over it. */
export function openLayers(layout, row, scale, picture) {
  if (row === null || layout.indexOf[row] < 0) return [];
  const [[left, top], , [right, bottom]] = squareAround(layout, row, layout.slot / 2);
  const own = picture && layout.slot * scale >= FRAMES_FROM ? [new BitmapLayer({ id: `open-picture-${row}`, image: picture, bounds: [left, bottom, right, top] })] : [];
  return [...own, ...frames("open", layout, [row], Math.max(layout.slot * 0.56, 9 / scale), 4, themeColor("--ink"))];
}
