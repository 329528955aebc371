// Painting a mask on an image, one bit per pixel as the generator sees it: with a brush, or rectangles by numbers.
import { h, say } from "./dom.js";

const MOST_UNDONE = 50;
const COLOR = [224, 64, 160, 176];
const SIDES = ["left", "top", "width", "height"];

/** A mask of width × height pixels, 1 where it is painted, whose strokes can be undone. */
class Mask {
  earlier = []; // the pixels before each stroke

  constructor(width, height) {
    Object.assign(this, { width, height, pixels: new Uint8Array(width * height) });
  }

  /** Begins a stroke. */
  remember() {
    this.earlier.push(this.pixels.slice());
    if (this.earlier.length > MOST_UNDONE) this.earlier.shift();
  }

  undo() {
    this.pixels = this.earlier.pop() ?? this.pixels;
  }

  clear() {
    this.pixels.fill(0);
  }

  /** Round dabs of a diameter along a line. */
  stroke([x1, y1], [x2, y2], diameter, value) {
    const steps = Math.max(1, Math.ceil(4 * Math.hypot(x2 - x1, y2 - y1) / diameter));
    for (let step = 0; step <= steps; step++) this.#dab(x1 + ((x2 - x1) * step) / steps, y1 + ((y2 - y1) * step) / steps, diameter / 2, value);
  }

  #dab(x, y, radius, value) {
    const [top, bottom] = [Math.max(0, Math.floor(y - radius)), Math.min(this.height - 1, Math.ceil(y + radius))];
    const [left, right] = [Math.max(0, Math.floor(x - radius)), Math.min(this.width - 1, Math.ceil(x + radius))];
    for (let row = top; row <= bottom; row++) {
      for (let column = left; column <= right; column++) {
        const isInside = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= Math.max(0.5, radius ** 2);
        if (isInside) this.pixels[row * this.width + column] = value;
      }
    }
  }

  rectangle([left, top, width, height], value) {
    for (let row = top; row < top + height; row++) this.pixels.fill(value, row * this.width + left, row * this.width + left + width);
  }

  /** As recipes hold it: bits, the first in the highest place of a byte, in base 64. */
  get packed() {
    const bytes = new Uint8Array(Math.ceil(this.pixels.length / 8));
    this.pixels.forEach((value, i) => { if (value) bytes[i >> 3] |= 128 >> (i & 7); });
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  }

  set packed(text) {
    const bytes = atob(text);
    this.pixels.forEach((_, i) => { this.pixels[i] = (bytes.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1; });
  }
}

/** {element, show(source, alt), get(), set(text)}: a mask painted on an image; `onchange` hears how many pixels it has. */
export function maskPainter(width, height, onchange) {
  const mask = new Mask(width, height);
  const image = h("img", { alt: "", width, height, draggable: false, decoding: "async" });
  const veil = h("canvas", { width, height, "aria-hidden": "true" });
  const ring = h("div", { class: "brush-ring", hidden: true });
  const frame = h("div", { class: "painted", data: { testid: "painter" } }, image, veil, ring);
  const brush = { value: 1, diameter: Math.max(2, Math.round(Math.min(width, height) / 6)) };
  const undo = h("button", { type: "button", class: "small", onclick: takeBack, data: { testid: "mask-undo" } }, "Undo stroke");
  const clear = h("button", { type: "button", class: "small", onclick: () => change(() => mask.clear()), data: { testid: "mask-clear" } }, "Clear");

  function draw() {
    const color = new ImageData(width, height);
    mask.pixels.forEach((value, i) => { if (value) color.data.set(COLOR, 4 * i); });
    veil.getContext("2d").putImageData(color, 0, 0);
    const n = mask.pixels.reduce((sum, value) => sum + value, 0);
    undo.disabled = !mask.earlier.length;
    clear.disabled = n === 0;
    onchange(n);
  }

  function change(work) {
    mask.remember();
    work();
    draw();
  }

  function takeBack() {
    mask.undo();
    draw();
    say("The last stroke is undone.");
  }

  connectBrush(frame, ring, mask, brush, draw);
  const rectangle = rectangleForm(width, height, (sides) => {
    change(() => mask.rectangle(sides, brush.value));
    say(brush.value ? "The rectangle is part of the mask." : "The rectangle is no part of the mask.");
  });
  const size = h("input", { id: "brush-size", type: "range", min: 1, max: Math.max(2, Math.round(Math.min(width, height) / 2)), value: brush.diameter, data: { testid: "brush-size" }, oninput: () => { brush.diameter = Number(size.value); } });
  const element = h("div", { class: "painter" }, frame, h("div", { class: "painter-tools" }, toolChoice((value) => { brush.value = value; }),
    h("label", { class: "field", htmlFor: "brush-size" }, "Size", size), h("div", { class: "row" }, undo, clear), rectangle,
    h("p", { class: "hint" }, "Ctrl+Z undoes a stroke while the focus is here.")));
  element.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches("input[type=number]")) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere, these keys undo a decision
    if (mask.earlier.length) takeBack();
  });
  draw();
  return {
    element,
    show(source, alt) { if (image.getAttribute("src") !== source) Object.assign(image, { src: source, alt }); },
    get: () => mask.packed,
    set(text) { change(() => { mask.packed = text; }); },
  };
}

/** Paints with the pointer: one stroke from down to up. */
function connectBrush(frame, ring, mask, brush, draw) {
  let last = null; // the place of the pointer while it paints
  const at = (event) => {
    const box = frame.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * mask.width, ((event.clientY - box.top) / box.height) * mask.height];
  };
  const paint = (event) => {
    const now = at(event);
    mask.stroke(last ?? now, now, brush.diameter, brush.value);
    last = now;
    draw();
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    frame.setPointerCapture(event.pointerId);
    mask.remember();
    paint(event);
  });
  frame.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    const half = brush.diameter / 2;
    ring.hidden = false;
    Object.assign(ring.style, { width: `${(200 * half) / mask.width}%`, left: `${(100 * (x - half)) / mask.width}%`, top: `${(100 * (y - half)) / mask.height}%` });
    if (last) paint(event);
  });
  const lift = () => { last = null; };
  frame.addEventListener("pointerup", lift);
  frame.addEventListener("pointercancel", lift);
  frame.addEventListener("pointerleave", () => { ring.hidden = true; });
}

/** Brush or eraser. */
function toolChoice(choose) {
  const radios = [["Brush", 1], ["Eraser", 0]].map(([text, value]) => h("label", { class: "pill" },
    h("input", { type: "radio", name: "mask-tool", checked: value === 1, onchange: () => choose(value), data: { testid: `mask-${text.toLowerCase()}` } }), h("span", {}, text)));
  return h("div", { class: "pills", role: "radiogroup", "aria-label": "Painting tool" }, radios);
}

/** Four numbers and a button that adds a rectangle: the keyboard's brush. */
function rectangleForm(width, height, add) {
  const initial = [Math.round(width / 4), Math.round(height / 4), Math.round(width / 2), Math.round(height / 2)];
  const inputs = SIDES.map((side, i) => h("input", { type: "number", min: i < 2 ? 0 : 1, max: i % 2 ? height : width, value: initial[i], "aria-label": `Rectangle: ${side}, in pixels of ${width} by ${height}` }));
  const paint = () => {
    const [left, top, w, hgt] = inputs.map((input) => Math.round(Number(input.value)));
    if (left < 0 || top < 0 || !(w > 0) || !(hgt > 0) || left + w > width || top + hgt > height) say(`The rectangle must lie within ${width} by ${height} pixels.`);
    else add([left, top, w, hgt]);
  };
  return h("details", { class: "region-numbers" }, h("summary", {}, "Rectangle by numbers"),
    h("div", { class: "fields" }, SIDES.map((side, i) => h("label", {}, side, inputs[i]))),
    h("button", { type: "button", class: "small", onclick: paint, data: { testid: "mask-rectangle" } }, "Paint it"));
}
