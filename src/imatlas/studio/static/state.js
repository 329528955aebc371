// What the whole studio shares: the atlas, the selection, the route, and the events that tell of their changes.
import * as api from "./api.js";
import { tellDone, images, count } from "./dom.js";

const bus = new EventTarget();

/** Calls the handler on every event of that name: atlas, selection, route, theme. */
export const on = (name, handler) => bus.addEventListener(name, (event) => handler(event.detail));

/** Tells everyone. */
export const emit = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

/** The selected images: one byte per image, because a lasso may catch a million. */
class Selection {
  mask = new Uint8Array(0);
  size = 0;

  has(row) {
    return this.mask[row] === 1;
  }

  rows() {
    const rows = new Array(this.size);
    for (let row = 0, i = 0; row < this.mask.length; row++) if (this.mask[row]) rows[i++] = row;
    return rows;
  }

  /** mode: "replace", "add" or "remove". */
  change(rows, mode = "replace") {
    if (mode === "replace") this.mask.fill(0);
    const value = mode === "remove" ? 0 : 1;
    for (const row of rows) this.mask[row] = value;
    this.size = this.mask.reduce((sum, byte) => sum + byte, 0);
    emit("selection");
  }

  toggle(row) {
    this.change([row], this.has(row) ? "remove" : "add");
  }

  clear() {
    if (this.size) this.change([]);
  }
}

/** The state; atlas is the answer of GET /api/atlas. */
export const state = {
  atlas: null,
  selection: new Selection(),
  route: { view: "map", image: null },
  layout: null,
  moved: new Set(), // rows whose files are in the trash
};

/** Takes a new answer of the server about the atlas. */
export function setAtlas(atlas) {
  const first = state.atlas === null;
  state.atlas = atlas;
  state.moved = new Set(atlas.moved);
  if (first) state.selection.mask = new Uint8Array(atlas.n_images);
  emit("atlas");
}

/** What a decision has done, in a sentence; see the server's `Decision.words` for what can be undone. */
function outcome({ kind, value, rows, keys, clusters }) {
  if (kind === "name") return value ? `Cluster named “${value}”.` : "The name of the cluster is taken away.";
  if (kind === "merge") return `${count(clusters.length)} clusters merged.`;
  if (kind === "split") return "The merged cluster is split.";
  if (kind === "label_by_names") return "The names of the clusters are labels of their images now.";
  if (kind === "keep") return `${images(keys.length)} brought back.`;
  if (kind === "different") return value ? `${images(rows.length)} marked as no duplicates.` : `Forgotten what was marked as no duplicate, of ${images(rows.length)}.`;
  if (kind === "best") return "Another image of the group is kept.";
  if (kind === "leave_out") return `${images(rows.length)} ${value ? "left out" : "kept"}.`;
  return value ? `${images(rows.length)} labeled “${value}”.` : `Label taken from ${images(rows.length)}.`;
}

/** Makes a decision and takes over its consequences. */
export async function decide(decision) {
  setAtlas(await api.decide(decision));
  tellDone(outcome(decision));
}

/** Undoes or redoes the last decision. */
export async function step(direction) {
  const text = state.atlas[direction];
  if (!text) return;
  const atlas = await (direction === "undo" ? api.undo() : api.redo());
  setAtlas(atlas);
  tellDone([`${direction === "undo" ? "Undone" : "Redone"}: ${text}.`, ...atlas.sentences].join(" "));
}

const columns = new Map();

/** The values of a column, one per image, as they are at the atlas's revision. */
export function column(name) {
  const known = columns.get(name);
  const revision = `${state.atlas.revision} ${describeColumn(name)?.version ?? ""}`;
  if (known?.revision === revision) return known.values;
  const values = api.getColumn(name);
  columns.set(name, { revision, values });
  values.catch(() => columns.delete(name));
  return values;
}

/** What the atlas says of a column: title, kind, values. */
export const describeColumn = (name) => state.atlas.columns.find((one) => one.name === name);

/** Whether the file of an image was moved to the trash. */
export const isMoved = (row) => state.moved.has(row);

/** The cluster with this id. */
export const clusterOf = (id) => state.atlas.clusters.find((cluster) => cluster.id === id);

/** Selects all images whose column holds one of the values between low and high. */
export async function selectWhere(name, low, high = low) {
  const values = await column(name);
  const rows = [];
  for (let row = 0; row < values.length; row++) if (values[row] >= low && values[row] <= high) rows.push(row);
  state.selection.change(rows);
}

/** Selects the images of a cluster, which is the value of the column at the cluster's medoid. */
export async function selectCluster(id) {
  const value = (await column("cluster"))[clusterOf(id).medoid];
  return selectWhere("cluster", value);
}

const knownKeys = new Map();
const ROWS_PER_ADDRESS = 500;

/** The keys of images, remembered from any list or asked for. */
export async function keysOf(rows) {
  const unknown = rows.filter((row) => !knownKeys.has(row));
  for (let start = 0; start < unknown.length; start += ROWS_PER_ADDRESS) {
    const part = unknown.slice(start, start + ROWS_PER_ADDRESS);
    remember((await api.getImages({ rows: part.join(","), limit: part.length })).images);
  }
  return rows.map((row) => knownKeys.get(row) ?? `image ${row}`);
}

/** Keeps the keys that a list brought, for tooltips and chips. */
export function remember(images) {
  if (knownKeys.size > 100000) knownKeys.clear();
  for (const image of images) knownKeys.set(image.row, image.key);
}

/** Goes to a view; the image panel stays open unless another image, or null, is given. */
export function go(view, image = state.route.image) {
  location.hash = `#/${view}${image === null ? "" : `?image=${image}`}`;
}

/** Opens an image in the panel. */
export const openImage = (row) => go(state.route.view, row);

/** Reads the route from the address. */
export function readRoute(views) {
  const [path, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const image = new URLSearchParams(parameters).get("image");
  const valid = image !== null && /^\d+$/.test(image) && Number(image) < state.atlas.n_images;
  state.route = { view: views.includes(path) ? path : "map", image: valid ? Number(image) : null };
  emit("route");
}
