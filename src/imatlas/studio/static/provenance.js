// A made image on which the pixels of one source can be lit: those under the pointer, or of a source in a list.
import * as api from "./api.js";
import { h, guarded, perFrame } from "./dom.js";

const VEIL = 0xb8; // opacity of the black over all other pixels

const percent = (share) => (share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`);

/** {element, light(number or null)}: an image of a creation; sources are those of that image. */
export function tracedPicture(creation, index, alt) {
  const sources = creation.sources[index] ?? [];
  const image = h("img", { src: api.made(creation, index), alt, width: creation.width, height: creation.height, decoding: "sync", draggable: false });
  const veil = h("canvas", { class: "veil", "aria-hidden": "true", hidden: true });
  const tip = h("div", { class: "source-tip", hidden: true, "aria-hidden": "true", data: { testid: "source-tip" } });
  const element = h("div", { class: "traced", data: { testid: "traced" } }, image, veil, tip);
  if (!sources.length) return { element, light: () => null };
  let loading = null; // of the number of the source at each pixel
  let lit = null;
  const numbers = () => (loading ??= api.madeSources(creation, index));

  async function light(number) {
    if (number === lit) return;
    lit = number;
    veil.hidden = number === null;
    if (number === null) return;
    const found = await guarded(numbers);
    if (!found || lit !== number) return;
    veil.width = creation.width;
    veil.height = creation.height;
    const pixels = new ImageData(veil.width, veil.height);
    for (let i = 0; i < found.length; i++) if (found[i] !== number) pixels.data[4 * i + 3] = VEIL;
    veil.getContext("2d").putImageData(pixels, 0, 0);
  }

  function tell(number, x, width) {
    const source = sources[number];
    tip.replaceChildren(...(source ? [
      source.row === null ? "" : h("img", { src: api.thumbnail(source.row), alt: "" }), h("span", {}, source.key), h("span", {}, percent(source.share)),
    ] : [h("span", {}, "An image that has left the atlas since")]));
    tip.classList.toggle("left", x > width / 2);
    tip.hidden = false;
  }

  const hover = perFrame(async (event) => {
    const found = await guarded(numbers);
    const box = image.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    if (!found || !element.matches(":hover") || x < 0 || y < 0 || x >= box.width || y >= box.height) return;
    const column = Math.floor((x / box.width) * creation.width);
    const row = Math.floor((y / box.height) * creation.height);
    const number = found[row * creation.width + column];
    if (number !== lit || tip.hidden) tell(number, x, box.width);
    tip.style.translate = `${x}px ${y}px`;
    light(number);
  });
  element.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") hover(event); });
  element.addEventListener("pointerleave", () => { tip.hidden = true; light(null); });
  return { element, light };
}

/** A list of the sources of an image: each lights its pixels, and opens. */
export function sourceList(sources, light, open) {
  const most = 12;
  const items = sources.slice(0, most).map((source, number) => {
    const text = `${source.key}, ${percent(source.share)}`;
    const events = { onpointerenter: () => light(number), onpointerleave: () => light(null), onfocus: () => light(number), onblur: () => light(null) };
    const content = [source.row === null ? h("span", { class: "gone" }, "left") : h("img", { src: api.thumbnail(source.row), alt: "", loading: "lazy" }), h("span", {}, percent(source.share))];
    return h("li", {}, h("button", { type: "button", title: text, "aria-label": source.row === null ? `${text}; it has left the atlas` : `Open ${text}`,
      onclick: () => { if (source.row !== null) open(source.row); }, ...events }, content));
  });
  const rest = sources.slice(most).reduce((sum, source) => sum + source.share, 0);
  return h("div", { class: "sources" }, h("h3", {}, "Composed of"),
    h("p", { class: "hint" }, "Point at the image, or at a source, to see which pixels come from where."),
    h("ul", { data: { testid: "sources" } }, items), sources.length > most ? h("p", { class: "hint" }, `and of ${sources.length - most} others, ${percent(rest)}`) : "");
}
