// A picture in a frame: it fits into the view, or is magnified and scrolls. Further layers lie on it.
import { h } from "./dom.js";

const ZOOMS = [["fit", "fit"], ["1", "100 %"], ["2", "200 %"], ["4", "400 %"]];

/** {element, box, tools, resize(width, height)}: a frame; whatever is put into `box` fills the picture. */
export function pictureFrame(label) {
  const size = { width: 1, height: 1 };
  const zoom = h("select", { "aria-label": "Zoom" }, ZOOMS.map(([value, name]) => h("option", { value }, name)));
  const box = h("div", { class: "frame-box" });
  const scroll = h("div", { class: "frame-scroll", tabIndex: 0, role: "region", "aria-label": label }, box);
  const tools = h("div", { class: "frame-tools" }, h("label", { class: "field" }, "Zoom", zoom));

  function apply() {
    const factor = Number(zoom.value);
    box.style.setProperty("--aspect", size.width / size.height);
    box.style.width = factor ? `${size.width * factor}px` : "";
    box.classList.toggle("magnified", factor > 1);
  }

  zoom.addEventListener("change", () => {
    const [x, y] = [scroll.scrollLeft + scroll.clientWidth / 2, scroll.scrollTop + scroll.clientHeight / 2];
    const before = box.clientWidth;
    apply();
    const by = box.clientWidth / before; // what was in the middle stays there
    scroll.scrollTo(x * by - scroll.clientWidth / 2, y * by - scroll.clientHeight / 2);
  });
  return {
    element: h("figure", { class: "frame" }, tools, scroll), box, tools,
    resize(width, height) { Object.assign(size, { width, height }); apply(); },
  };
}
