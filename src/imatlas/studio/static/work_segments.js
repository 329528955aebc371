// The parts of the picture: from fine to coarse, from strokes, or the object that stands out.
import * as api from "./api.js";
import { byId, h, guarded, count, debounced, perFrame, say } from "./dom.js";
import { on } from "./state.js";
import { work, runner, fileName } from "./workpiece.js";
import { pictureFrame } from "./frame.js";
import { cut, colorSums, meanColors, packed, paintSegments } from "./region_tree.js";
import { startStrokes, showStrokes } from "./work_strokes.js";

const MODES = ["levels", "strokes", "object"];
const OUTLINE = packed(255, 220, 0);
const runs = runner("finding parts");
const frame = pictureFrame("The picture and its parts");
const picture = h("img", { alt: "", draggable: false });
const overlay = h("canvas", { class: "overlay", "aria-hidden": "true", data: { testid: "overlay" } });
let mode = "levels";
let tree = null;
let sums = null; // of the colors of the finest regions
let asked = null; // the piece whose parts are being found
let object = null; // its address

/** An empty overlay of the size of the picture. */
function emptied() {
  const { piece } = work;
  if (overlay.width !== piece.width || overlay.height !== piece.height) Object.assign(overlay, { width: piece.width, height: piece.height });
  const context = overlay.getContext("2d");
  context.clearRect(0, 0, piece.width, piece.height);
  return context;
}

const drawLevel = perFrame(() => {
  if (!tree || mode !== "levels") return;
  const level = Number(byId("segments-level").value);
  const { roots, count: n } = cut(tree, level);
  byId("segments-count").textContent = `${count(n)} ${n === 1 ? "segment" : "segments"}`;
  byId("segments-download").href = api.labelMap(work.piece.id, level);
  const colors = byId("segments-show").value === "colors" ? meanColors(tree, sums, roots) : null;
  const context = emptied();
  const image = context.createImageData(tree.width, tree.height);
  const thickness = Math.max(1, Math.round(tree.width / Math.max(1, frame.box.clientWidth)));
  paintSegments(tree, roots, colors, OUTLINE, thickness, new Uint32Array(image.data.buffer));
  context.putImageData(image, 0, 0);
});
const sayCount = debounced(() => say(byId("segments-count").textContent), 600);

/** Darkens what is not the object. */
async function drawObject() {
  const { piece } = work;
  emptied();
  if (!object) {
    const blob = await api.salientObject(piece.id);
    if (piece !== work.piece) return;
    object = { address: URL.createObjectURL(blob), image: await createImageBitmap(blob) };
  }
  byId("object-download").href = object.address;
  byId("object-download").download = fileName("-object.png");
  byId("object-download").hidden = false;
  if (mode !== "object") return;
  const context = emptied();
  context.fillRect(0, 0, overlay.width, overlay.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(object.image, 0, 0);
  context.globalCompositeOperation = "source-over";
}

function drawMode() {
  if (!tree) return;
  showStrokes(mode === "strokes");
  if (mode === "levels") drawLevel();
  if (mode === "object") guarded(drawObject);
}

function choose(next) {
  mode = next;
  for (const name of MODES) {
    byId(`segments-${name}`).setAttribute("aria-pressed", String(name === mode));
    byId(`panel-${name}`).hidden = name !== mode;
  }
  drawMode();
}

/** Bytes (width * height * 4) of the picture. */
async function bytesOf(piece) {
  await picture.decode();
  const canvas = new OffscreenCanvas(piece.width, piece.height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, piece.width, piece.height);
  return context.getImageData(0, 0, piece.width, piece.height).data;
}

/** Finds the parts of the picture, once the task is in view. */
export function showSegments() {
  const { piece } = work;
  if (!piece || asked === piece || byId("work-segments").hidden || byId("view-work").hidden) return;
  asked = piece;
  guarded(async () => {
    try {
      await runs.run(() => api.findSegments(piece.id));
      const found = await api.getRegions(piece.id);
      const rgba = await bytesOf(piece);
      if (piece !== work.piece) return;
      tree = found;
      sums = colorSums(tree, rgba);
    } catch (error) {
      if (asked === piece) asked = null;
      throw error;
    } finally {
      byId("segments-again").hidden = asked === piece;
    }
    byId("segments-controls").disabled = false;
    drawMode();
    say("The parts are found.");
  });
}

function clear() {
  tree = sums = null;
  if (object) URL.revokeObjectURL(object.address);
  object = null;
  runs.stop();
  byId("segments-controls").disabled = true;
  byId("segments-count").textContent = "";
  byId("object-download").hidden = true;
  picture.src = work.piece.picture;
  picture.alt = work.piece.name;
  byId("segments-download").download = fileName("-labels.png");
  frame.resize(work.piece.width, work.piece.height);
  emptied();
  showSegments();
}

/** Connects the task. */
export function startSegments() {
  frame.box.append(picture, overlay);
  byId("segments-stage").append(frame.element);
  byId("segments-panel").append(runs.element);
  startStrokes(frame.box, emptied);
  for (const name of MODES) byId(`segments-${name}`).addEventListener("click", () => choose(name));
  byId("segments-level").addEventListener("input", () => { drawLevel(); sayCount(); });
  byId("segments-show").addEventListener("change", drawLevel);
  const fade = () => { overlay.style.opacity = byId("segments-opacity").value; };
  byId("segments-opacity").addEventListener("input", fade);
  byId("segments-again").addEventListener("click", showSegments);
  on("piece", clear);
  on("route", showSegments);
  fade();
  choose("levels");
}
