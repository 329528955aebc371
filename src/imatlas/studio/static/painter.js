// Painting a mask on an image, one bit per pixel as the generator sees it: with a brush, or rectangles by numbers.
import { h, say } from "./dom.js";

const MOST_UNDONE = 50;
const SIDES = ["left", "top", "width", "height"];

/** A mask as recipes hold it: bits, the first in the highest place of a byte, in base 64. */
function packed(mask) {
  const bytes = new Uint8Array(Math.ceil(mask.length / 8));
  mask.forEach((value, i) => { if (value) bytes[i >> 3] |= 128 >> (i & 7); });
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function unpacked(text, n) {
  const bytes = atob(text);
  return Uint8Array.from({ length: n }, (_, i) => (bytes.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1);
}

/** {element, show(source, alt), get(), set(text)}: a mask on an image of width × height pixels; `onchange` hears of its changes. */
export function maskPainter(width, height, onchange) {
  let mask = new Uint8Array(width * height);
  let tool = "brush";
  let last = null; // the place of the pointer while it paints
  const earlier = []; // masks before each stroke
  const image = h("img", { alt: "", draggable: false, decoding: "async" });
  const veil = h("canvas", { width, height, "aria-hidden": "true" });
  const ring = h("div", { class: "brush-ring", hidden: true });
  const frame = h("div", { class: "painted", data: { testid: "painter" } }, image, veil, ring);
  const size = h("input", { id: "brush-size", type: "range", min: 1, max: Math.max(2, Math.round(Math.min(width, height) / 2)), value: Math.max(2, Math.round(Math.min(width, height) / 6)), data: { testid: "brush-size" } });
  const undo = h("button", { type: "button", class: "small", disabled: true, onclick: takeBack, data: { testid: "mask-undo" } }, "Undo stroke");
  const clear = h("button", { type: "button", class: "small", disabled: true, onclick: () => change((pixels) => pixels.fill(0)), data: { testid: "mask-clear" } }, "Clear");

  function draw() {
    const color = new ImageData(width, height);
    mask.forEach((value, i) => { if (value) color.data.set([224, 64, 160, 176], 4 * i); });
    veil.getContext("2d").putImageData(color, 0, 0);
    const n = mask.reduce((sum, value) => sum + value, 0);
    undo.disabled = !earlier.length;
    clear.disabled = n === 0;
    onchange(n);
  }

  function remember() {
    earlier.push(mask.slice());
    if (earlier.length > MOST_UNDONE) earlier.shift();
  }

  function change(work) {
    remember();
    work(mask);
    draw();
  }

  function takeBack() {
    mask = earlier.pop() ?? mask;
    draw();
    say("The last stroke is undone.");
  }

  /** A line of round dabs from one place to another, in pixels of the image. */
  function dab([x1, y1], [x2, y2]) {
    const radius = Number(size.value) / 2;
    const value = tool === "brush" ? 1 : 0;
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(x2 - x1, y2 - y1) / Math.max(1, radius)));
    for (let step = 0; step <= steps; step++) {
      const [x, y] = [x1 + ((x2 - x1) * step) / steps, y1 + ((y2 - y1) * step) / steps];
      const [top, bottom] = [Math.max(0, Math.floor(y - radius)), Math.min(height - 1, Math.ceil(y + radius))];
      const [left, right] = [Math.max(0, Math.floor(x - radius)), Math.min(width - 1, Math.ceil(x + radius))];
      for (let row = top; row <= bottom; row++) {
        for (let column = left; column <= right; column++) {
          const inside = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= Math.max(0.5, radius) ** 2;
          if (inside) mask[row * width + column] = value;
        }
      }
    }
  }

  const at = (event) => {
    const box = veil.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  };

  function showRing(event) {
    const [x, y] = at(event);
    const diameter = Number(size.value);
    ring.hidden = false;
    Object.assign(ring.style, { width: `${(100 * diameter) / width}%`, left: `${(100 * (x - diameter / 2)) / width}%`, top: `${(100 * (y - diameter / 2)) / height}%` });
  }

  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    frame.setPointerCapture(event.pointerId);
    remember();
    last = at(event);
    dab(last, last);
    draw();
  });
  frame.addEventListener("pointermove", (event) => {
    showRing(event);
    if (!last) return;
    const now = at(event);
    dab(last, now);
    last = now;
    draw();
  });
  const lift = () => { last = null; };
  frame.addEventListener("pointerup", lift);
  frame.addEventListener("pointercancel", lift);
  frame.addEventListener("pointerleave", () => { ring.hidden = true; });

  const rectangle = rectangleForm(width, height, ([left, top, w, hgt]) => {
    change((pixels) => {
      for (let row = top; row < top + hgt; row++) pixels.fill(tool === "brush" ? 1 : 0, row * width + left, row * width + left + w);
    });
    say("The rectangle is part of the mask.");
  });
  const element = h("div", { class: "painter" }, frame, h("div", { class: "painter-tools" }, toolChoice((name) => { tool = name; }),
    h("label", { class: "field", htmlFor: "brush-size" }, "Size", size), h("div", { class: "row" }, undo, clear), rectangle,
    h("p", { class: "hint" }, "Ctrl+Z undoes a stroke while the focus is here.")));
  element.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches("input[type=number]")) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere, these keys undo a decision
    if (earlier.length) takeBack();
  });

  return {
    element,
    show(source, alt) { if (image.getAttribute("src") !== source) Object.assign(image, { src: source, alt }); },
    get: () => packed(mask),
    set(text) { change((pixels) => pixels.set(unpacked(text, pixels.length))); },
    clear() { mask.fill(0); earlier.length = 0; draw(); },
  };
}

/** Brush or eraser. */
function toolChoice(choose) {
  const radios = [["brush", "Brush"], ["eraser", "Eraser"]].map(([value, text]) => h("label", { class: "pill" },
    h("input", { type: "radio", name: "mask-tool", value, checked: value === "brush", onchange: () => choose(value), data: { testid: `mask-${value}` } }), h("span", {}, text)));
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
