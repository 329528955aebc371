// What there is and what to do next: told once for an atlas, when it is first opened or was just learned.
import { byId, count, images } from "./dom.js";
import { state, go } from "./state.js";

const TOLD = "imatlas-told"; // ids of the atlases that this browser has told of, the last one last
const MOST = 50;

function told() {
  try {
    const ids = JSON.parse(localStorage.getItem(TOLD));
    return Array.isArray(ids) ? ids : [];
  } catch {
    return []; // damaged, or the browser keeps nothing
  }
}

function remember(id) {
  try {
    localStorage.setItem(TOLD, JSON.stringify([...told(), id].slice(-MOST)));
  } catch {
    // It is told again the next time.
  }
}

/** "203 images in 11 clusters; 2 files could not be used." */
function facts({ n_images: nImages, clusters, n_skipped: nSkipped }) {
  const present = clusters.filter((cluster) => cluster.size).length;
  const skipped = nSkipped ? `; ${count(nSkipped)} ${nSkipped === 1 ? "file" : "files"} could not be used` : "";
  return `${images(nImages)} in ${count(present)} ${present === 1 ? "cluster" : "clusters"}${skipped}.`;
}

/** Tells of the atlas, unless this browser has. */
export function tellFirst() {
  if (told().includes(state.atlas.atlas)) return;
  byId("first-facts").textContent = facts(state.atlas);
  byId("first").hidden = false;
  remember(state.atlas.atlas);
}

/** Connects the buttons, when there are views to go to. */
export function startFirst() {
  const close = () => { byId("first").hidden = true; };
  for (const name of ["clusters", "duplicates", "outliers"]) {
    byId(`first-${name}`).addEventListener("click", () => {
      close();
      go("decide");
      byId(`tab-${name}`).click();
      byId(`tab-${name}`).focus();
    });
  }
  byId("first-close").addEventListener("click", () => { close(); byId("main").focus(); });
}
