// Images unlike all others, at a false positive rate that a person chooses.
import * as api from "./api.js";
import { byId, h, busy, guarded, debounced, images, say, short } from "./dom.js";
import { state, on, column, decide } from "./state.js";
import { tile, small } from "./tiles.js";

const LIMIT = 500;

let request = null;
let shown = []; // rows
let revision = -1;

const rate = () => 10 ** Number(byId("outlier-rate").value);

function drawRate() {
  const text = `${short(100 * rate())} %`;
  byId("outlier-rate-value").textContent = text;
  byId("outlier-rate").setAttribute("aria-valuetext", `${text} of usual images would be called unusual`);
}

function item(image, isOut) {
  const toggle = small(isOut ? "Keep" : "Leave out", (event) => busy(event.currentTarget, () => decide({ kind: "leave_out", rows: [image.row], value: !isOut })),
    { class: "small writes", "aria-label": `${isOut ? "Keep" : "Leave out"} ${image.key}` });
  const made = tile(image.row, image.key, { caption: isOut ? "left out" : `p = ${short(image.p_value)}`, extra: toggle });
  made.classList.toggle("left-out", isOut);
  if (byId("outlier-heat").checked) addHeat(made, image);
  return made;
}

/** Puts the heat map of an image over its picture; it is made when it comes into view. */
function addHeat(made, image) {
  const heat = h("img", { class: "heat", src: api.outlierHeat(image.row), alt: `What is unusual in ${image.key}`, loading: "lazy", data: { testid: "heat" } });
  const picture = made.querySelector(".tile-open");
  picture.classList.add("waits");
  heat.addEventListener("load", () => picture.classList.remove("waits"));
  heat.addEventListener("error", () => { picture.classList.remove("waits"); heat.remove(); });
  picture.append(heat);
}

function toggleHeat() {
  for (const made of byId("outliers").querySelectorAll(".tile")) {
    made.querySelector(".heat")?.remove();
    if (byId("outlier-heat").checked) addHeat(made, { row: Number(made.dataset.row), key: made.querySelector(".tile-open").title });
  }
  byId("outlier-heat-note").hidden = !byId("outlier-heat").checked;
}

async function load() {
  request?.abort();
  request = new AbortController();
  const { signal } = request;
  revision = state.atlas.revision;
  await guarded(async () => {
    const [found, leftOut] = await Promise.all([api.getOutliers(rate(), LIMIT, signal), column("left_out")]);
    if (signal.aborted) return;
    shown = found.images.map((image) => image.row);
    byId("outliers").replaceChildren(...found.images.map((image) => item(image, leftOut[image.row] >= 0)));
    const more = found.total > shown.length ? ` The ${images(shown.length)} most unusual are shown.` : "";
    byId("outlier-sentence").textContent = (found.sentence || `${images(found.total)} are unusual.`) + more;
    for (const id of ["outliers-select", "outliers-leave-out"]) byId(id).disabled = !shown.length;
    say(byId("outlier-sentence").textContent);
  });
}

/** Loads the outliers if they are not those of this revision already. */
export function showOutliers() {
  if (revision !== state.atlas.revision) load();
}

/** Connects the tab of outliers. */
export function startOutliers() {
  const loadSoon = debounced(load, 250);
  byId("outlier-rate").addEventListener("input", () => { drawRate(); loadSoon(); });
  byId("outlier-heat").addEventListener("change", toggleHeat);
  byId("outliers-select").addEventListener("click", () => state.selection.change(shown));
  byId("outliers-leave-out").addEventListener("click", (event) => busy(event.currentTarget, () => decide({ kind: "leave_out", rows: shown, value: true })));
  on("atlas", () => { if (!byId("panel-outliers").hidden) showOutliers(); });
  drawRate();
}
