// Strokes of several classes on the picture, by pointer or by keys, and the segments that continue them.
import * as api from "./api.js";
import { byId, h, guarded, say } from "./dom.js";
import { on } from "./state.js";
import { themeColor } from "./colors.js";
import { work, fileName } from "./workpiece.js";
import { packed } from "./region_tree.js";

const MOST_CLASSES = 8;
const TINT = 170; // of 255: the picture shines through
const COLORS = [0, 1, 2, 3, 4, 5, 6, 8];
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const canvas = h("canvas", {
  class: "strokes", tabIndex: 0, role: "application", hidden: true, data: { testid: "strokes" }, "aria-describedby": "strokes-help",
  "aria-label": "Strokes on the picture",
});
let emptied = null; // the overlay, made empty
let strokes = []; // {label, width, points}
let nClasses = 2;
let label = 1; // 0 erases
let drawing = null; // the stroke under way
let cursor = null; // [x, y], by keys
let request = null;
let mask = null; // address of the label map
let answer = null; // {labels, shares}

const colorOf = (one) => themeColor(`--c${COLORS[one - 1]}`);
const brush = () => Math.max(1, Number(byId("strokes-size").value) / 100 * Math.hypot(canvas.width, canvas.height));

function drawStroke(context, { label: of, width, points }) {
  context.globalCompositeOperation = of ? "source-over" : "destination-out";
  context.strokeStyle = of ? `rgb(${colorOf(of).join(" ")})` : "#000";
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
  context.stroke();
  context.globalCompositeOperation = "source-over";
}

function draw() {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const stroke of drawing ? [...strokes, drawing] : strokes) drawStroke(context, stroke);
  if (!cursor || document.activeElement !== canvas) return;
  for (const [color, width] of [["#000", 4], ["#fff", 2]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: width * Math.max(1, canvas.width / Math.max(1, canvas.clientWidth)) });
    context.beginPath();
    context.arc(...cursor, brush() / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

function drawClasses() {
  const share = (one) => (answer ? ` ${Math.round(100 * answer.shares[one])} %` : "");
  const swatch = (one) => {
    const spot = h("span", { class: "swatch" });
    spot.style.background = `rgb(${colorOf(one).join(" ")})`;
    return spot;
  };
  byId("strokes-classes").replaceChildren(...Array.from({ length: nClasses }, (_, i) => i + 1).map((one) => h("button", {
    type: "button", "aria-pressed": String(label === one), onclick: () => setLabel(one), data: { testid: `class-${one}` },
  }, swatch(one), `Class ${one}${share(one)}`)));
  byId("strokes-erase").setAttribute("aria-pressed", String(label === 0));
  byId("strokes-add").hidden = nClasses >= MOST_CLASSES;
  byId("strokes-undo").disabled = byId("strokes-clear").disabled = !strokes.length;
  byId("strokes-hint").hidden = answer !== null;
  byId("strokes-download").hidden = answer === null;
}

function setLabel(next) {
  label = next;
  drawClasses();
  say(label ? `Class ${label}` : "Erasing");
}

/** The labels of a label map, 1 for each pixel. */
async function labelsIn(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const labels = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < labels.length; i++) labels[i] = rgba[4 * i];
  return labels;
}

function drawAnswer() {
  const context = emptied();
  if (!answer) return;
  const colors = Array.from({ length: MOST_CLASSES + 1 }, (_, one) => (one ? packed(...colorOf(one), TINT) : 0));
  const image = context.createImageData(canvas.width, canvas.height);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = colors[answer.labels[i]];
  context.putImageData(image, 0, 0);
}

/** Asks for the segments that continue the strokes, and shows them. */
async function ask() {
  request?.abort();
  const { signal } = request = new AbortController();
  const { piece } = work;
  const blob = strokes.length ? await api.continueStrokes(piece.id, strokes, signal) : null;
  const labels = blob && await labelsIn(blob);
  if (signal.aborted || piece !== work.piece) return;
  if (mask) URL.revokeObjectURL(mask);
  mask = blob && URL.createObjectURL(blob);
  answer = null;
  if (labels) {
    const shares = new Float64Array(MOST_CLASSES + 1);
    for (const one of labels) shares[one] += 1 / labels.length;
    answer = { labels, shares };
    Object.assign(byId("strokes-download"), { href: mask, download: fileName("-mask.png") });
    say(`The picture is divided: ${Array.from({ length: nClasses }, (_, i) => `class ${i + 1} ${Math.round(100 * shares[i + 1])} %`).join(", ")}.`);
  }
  drawClasses();
  if (!canvas.hidden) drawAnswer();
}

function changed() {
  draw();
  drawClasses();
  guarded(ask);
}

const begin = (point) => { drawing = { label, width: brush(), points: [point] }; draw(); };

function end() {
  if (!drawing) return;
  strokes.push(drawing);
  drawing = null;
  changed();
}

function undo() {
  if (drawing) drawing = null; else strokes.pop();
  changed();
}

function clear() {
  strokes = [];
  changed();
}

function move(point) {
  const [x, y] = drawing.points.at(-1);
  if (Math.hypot(point[0] - x, point[1] - y) < 1) return;
  drawing.points.push(point);
  draw();
}

function connectPointer() {
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    begin(at(event));
  });
  canvas.addEventListener("pointermove", (event) => { if (drawing && canvas.hasPointerCapture(event.pointerId)) for (const one of event.getCoalescedEvents?.() ?? [event]) move(at(one)); });
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
}

function onKey(event) {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key in STEPS) step(STEPS[event.key], event.shiftKey ? 5 : 1);
  else if (event.key === " " || event.key === "Enter") { if (drawing) end(); else { cursor ??= [canvas.width / 2, canvas.height / 2]; begin(cursor); say("Drawing"); } }
  else if (event.key === "Escape" && drawing) { drawing = null; draw(); }
  else if (event.key === "e") setLabel(0);
  else if (/^[1-8]$/.test(event.key) && Number(event.key) <= nClasses) setLabel(Number(event.key));
  else return;
  event.preventDefault();
  event.stopPropagation(); // these keys mean something else to the studio
}

function step([x, y], times) {
  cursor ??= [canvas.width / 2, canvas.height / 2];
  const by = Math.max(1, canvas.width / 50) * times;
  cursor = [Math.max(0, Math.min(canvas.width - 1, cursor[0] + x * by)), Math.max(0, Math.min(canvas.height - 1, cursor[1] + y * by))];
  if (drawing) move(cursor); else draw();
}

/** Shows the strokes and what continues them, or hides them. */
export function showStrokes(visible) {
  canvas.hidden = !visible;
  if (!visible) return;
  draw();
  drawAnswer();
}

function anew() {
  Object.assign(canvas, { width: work.piece.width, height: work.piece.height });
  request?.abort();
  [strokes, drawing, cursor, answer, nClasses, label] = [[], null, null, null, 2, 1];
  drawClasses();
}

/** Connects the strokes; `box` is the frame of the picture, `empty` gives its overlay without anything. */
export function startStrokes(box, empty) {
  emptied = empty;
  box.append(canvas);
  connectPointer();
  canvas.addEventListener("keydown", onKey);
  for (const type of ["focus", "blur"]) canvas.addEventListener(type, draw);
  byId("strokes-erase").addEventListener("click", () => setLabel(0));
  byId("strokes-add").addEventListener("click", () => { nClasses++; setLabel(nClasses); });
  byId("strokes-undo").addEventListener("click", undo);
  byId("strokes-clear").addEventListener("click", clear);
  on("piece", anew);
  on("theme", () => { drawClasses(); if (!canvas.hidden) showStrokes(true); });
}
