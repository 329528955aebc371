// Where the studio starts: loads the atlas, connects the views, and follows the address.
import { getAtlas } from "./api.js";
import { byId, guarded, count } from "./dom.js";
import { state, setAtlas, readRoute, emit, on } from "./state.js";
import { map, prepareMap, startMap, firstView } from "./map.js";
import { tellFirst } from "./first.js";
import { startFollowing } from "./follow.js";

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

let others = null;

/** Loads and starts all views but the map, once. */
function otherViews() {
  others ??= import("./views.js").then(({ startViews }) => startViews());
  return others;
}

/** Shows what the address names: the map alone at once, all else when it is loaded. */
async function follow() {
  if (!["", "#/", "#/map"].includes(location.hash)) await otherViews();
  readRoute(VIEWS);
}

async function start() {
  connectTheme();
  setAtlas(await getAtlas());
  byId("brand").textContent = state.atlas.name;
  byId("brand").title = `${state.atlas.name}: ${count(state.atlas.n_images)} images`;
  byId("map-canvas").setAttribute("aria-label", `Map of ${count(state.atlas.n_images)} images`);
  on("route", showView);
  addEventListener("hashchange", () => guarded(follow));
  tellFirst(); // before the canvas is made, which takes long to change its size without a graphics card
  startFollowing();
  prepareMap();
  const loading = startMap();
  await follow();
  await loading;
  if (state.route.view === "map") await firstView();
  await otherViews();
  document.body.dataset.ready = "yes";
}

window.studio = { state, map };
guarded(start);
