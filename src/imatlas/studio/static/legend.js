// What the colors of the map mean; each entry selects its images.
import { byId, h, count, guarded, say, images } from "./dom.js";
import { state, selectWhere } from "./state.js";

const css = (color) => `rgb(${color.join(",")})`;

/** Draws the legend of a coloring. */
export function drawLegend(coloring) {
  const entries = coloring.entries.map((entry) => {
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = css(entry.color);
    const choose = () => guarded(async () => {
      await selectWhere(coloring.name, entry.low, entry.high);
      say(`${images(state.selection.size)} selected.`);
    });
    return h("li", {}, h("button", { type: "button", title: `Select ${images(entry.count)}: ${entry.name}`, onclick: choose },
      swatch, h("span", { class: "name" }, entry.name), h("span", { class: "count" }, count(entry.count))));
  });
  byId("legend").replaceChildren(...entries);
}
