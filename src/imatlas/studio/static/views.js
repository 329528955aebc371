// All that is not the map: loaded behind it, so that the map is there first.
import { state } from "./state.js";
import { cancelDrawing } from "./lasso.js";
import { startGallery } from "./gallery.js";
import { startImage, closeImage } from "./image.js";
import { startSearch } from "./search.js";
import { startDecide } from "./decide.js";
import { startCreate } from "./create.js";
import { startWork } from "./work.js";
import { startSelection } from "./selection.js";
import { startExports } from "./exports.js";
import { startFirst } from "./first.js";
import { startSheets } from "./sheets.js";
import { keepChecked } from "./tiles.js";

function onEscape(event) {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (!cancelDrawing() && !closeImage()) state.selection.clear();
}

/** Starts them. */
export function startViews() {
  keepChecked();
  startSelection();
  startExports();
  startImage();
  startGallery();
  startSearch();
  startDecide();
  startCreate();
  startWork();
  startFirst();
  startSheets();
  document.addEventListener("keydown", onEscape);
}
