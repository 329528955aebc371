// A picture of one image in a list: opens it, and can be selected. Used by all lists but the gallery.
import { thumbnail } from "./api.js";
import { h } from "./dom.js";
import { state, on, isMoved, openImage } from "./state.js";

/** A list item of an image. options: caption, badge, checkable, extra (elements below), onopen. */
export function tile(row, key, { caption = "", badge = "", checkable = true, extra = [], onopen = openImage } = {}) {
  if (isMoved(row)) badge = "moved";
  const picture = h("button", { type: "button", class: "tile-open", "aria-label": `Open ${key}`, title: key, data: { row }, onclick: () => onopen(row) },
    h("img", { src: thumbnail(row), alt: "", loading: "lazy", decoding: "async" }), badge ? h("span", { class: "badge" }, badge) : null);
  return h("li", { class: isMoved(row) ? "tile moved" : "tile", data: { row } }, h("div", { class: "tile-picture" }, picture, checkable ? checkbox(row, key) : null),
    h("p", { class: "caption" }, h("span", { class: "key" }, key), caption ? h("span", {}, caption) : null), extra);
}

/** The checkbox that selects an image. */
export function checkbox(row, key, properties = {}) {
  const box = h("input", {
    type: "checkbox", checked: state.selection.has(row), "aria-label": `Select ${key}`, data: { select: row },
    onchange: () => state.selection.toggle(row), ...properties,
  });
  return h("label", { class: "tile-check" }, box);
}

/** Keeps all checkboxes on the page in step with the selection. */
export function keepChecked() {
  on("selection", () => {
    for (const box of document.querySelectorAll("input[data-select]")) box.checked = state.selection.has(Number(box.dataset.select));
  });
}

/** A button as lists have them below their tiles. */
export const small = (text, onclick, properties = {}) => h("button", { type: "button", class: "small", onclick, ...properties }, text);
