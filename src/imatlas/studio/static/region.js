// A rectangle that is drawn on a picture, in pixels of the original; also by typing its numbers.
import { h } from "./dom.js";

const SIDES = ["left", "top", "width", "height"];

/** {element, image, get(), clear()}: a picture of that original size on which a region can be drawn. */
export function regionPicker(source, alt, size, onchange) {
  const image = h("img", { src: source, alt, draggable: false, decoding: "async" });
  const marker = h("div", { class: "region", hidden: true });
  const frame = h("div", { class: "region-frame" }, image, marker);
  const inputs = SIDES.map((side) => h("input", { type: "number", min: 0, max: side === "left" || side === "width" ? size.width : size.height, "aria-label": `Region: ${side}, in pixels`, oninput: typed }));
  const numbers = h("details", { class: "region-numbers" }, h("summary", {}, "Region by numbers"),
    h("div", { class: "fields" }, SIDES.map((side, i) => h("label", {}, side, inputs[i]))));
  let region = null;
  let start = null;

  function draw() {
    marker.hidden = region === null;
    if (!region) return;
    const totals = [size.width, size.height, size.width, size.height];
    SIDES.forEach((side, i) => { marker.style[side] = `${(region[i] / totals[i]) * 100}%`; });
  }

  function set(next, fromInputs = false) {
    region = next;
    draw();
    if (!fromInputs) inputs.forEach((input, i) => { input.value = region ? region[i] : ""; });
    onchange(region);
  }

  function typed() {
    const [left, top, width, height] = inputs.map((input) => Math.round(Number(input.value)));
    const valid = width > 0 && height > 0 && left >= 0 && top >= 0 && left + width <= size.width && top + height <= size.height;
    set(valid ? [left, top, width, height] : null, true);
  }

  const at = (event) => {
    const box = frame.getBoundingClientRect();
    const share = (value, total) => Math.max(0, Math.min(1, value / total));
    return [share(event.clientX - box.left, box.width) * size.width, share(event.clientY - box.top, box.height) * size.height];
  };

  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    frame.setPointerCapture(event.pointerId);
    start = at(event);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = at(event);
    const [left, top] = [Math.floor(Math.min(x, start[0])), Math.floor(Math.min(y, start[1]))];
    region = [left, top, Math.ceil(Math.max(x, start[0])) - left, Math.ceil(Math.max(y, start[1])) - top];
    draw();
  });
  const finish = () => {
    if (!start) return;
    start = null;
    // A click, or a sliver nobody meant, takes the region away.
    const large = region && region[2] >= size.width / 50 && region[3] >= size.height / 50;
    set(large ? region : null);
  };
  frame.addEventListener("pointerup", finish);
  frame.addEventListener("pointercancel", () => { start = null; set(null); }); // a finger scrolls

  return { element: h("div", { class: "region-picker" }, frame, numbers), image, frame, get: () => region, clear: () => set(null) };
}
