// Where the studio starts: loads the atlas, connects the views, and follows the address.
import { getAtlas } from "./api.js";
import { byId, guarded, count } from "./dom.js";
import { state, setAtlas, readRoute, emit, on } from "./state.js";
import { map, prepareMap, startMap } from "./map.js";
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
import { startFollowing } from "./follow.js";
import { keepChecked } from "./tiles.js";

const VIEWS = ["map", "gallery", "search", "decide", "create", "work"];
const THEME = "imatlas-theme"; // the reports remember the theme under the same name

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function connectTheme() {
  byId("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(THEME, theme);
    emit("theme");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => emit("theme"));
}

function showView() {
  const { view, image } = state.route;
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll(".bar nav a")) {
    const name = link.dataset.view;
    // The open image stays open from view to view.
    link.href = `#/${name}${image === null ? "" : `?image=${image}`}`;
    if (name === view) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · ${state.atlas.name}`;
}

function onEscape(event) {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (!cancelDrawing() && !closeImage()) state.selection.clear();
}

async function start() {
  connectTheme();
  const loading = getAtlas();
  prepareMap();
  setAtlas(await loading);
  byId("brand").textContent = state.atlas.name;
  byId("brand").title = `${state.atlas.name}: ${count(state.atlas.n_images)} images`;
  byId("map-canvas").setAttribute("aria-label", `Map of ${count(state.atlas.n_images)} images`);
  on("route", showView);
  keepChecked();
  startSelection();
  startExports();
  startImage();
  startGallery();
  startSearch();
  startDecide();
  startCreate();
  startWork();
  readRoute(VIEWS);
  addEventListener("hashchange", () => readRoute(VIEWS));
  document.addEventListener("keydown", onEscape);
  startFirst();
  startFollowing();
  await startMap();
  document.body.dataset.ready = "yes";
}

window.studio = { state, map };
guarded(start);
