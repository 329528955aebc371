// On a phone the panels over the map are sheets at the bottom: closed or low at first, so that the map can be used.
import { byId } from "./dom.js";

const SHEETS = [["map-controls-toggle", "map-controls"], ["selection-more", "selection-bar"], ["image-more", "image-panel"]];

/** Opens a sheet in full, or closes it; wide windows show all panels in any case. */
function toggle(button, panel) {
  const isOpen = panel.classList.toggle("open");
  button.setAttribute("aria-expanded", String(isOpen));
}

/** Connects the buttons of the sheets. */
export function startSheets() {
  for (const [button, panel] of SHEETS) byId(button).addEventListener("click", () => toggle(byId(button), byId(panel)));
}
