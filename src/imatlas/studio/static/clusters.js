// The list of clusters: naming them, merging them, and splitting merged ones.
import * as api from "./api.js";
import { byId, h, busy, guarded, images, say } from "./dom.js";
import { state, on, decide, selectCluster } from "./state.js";
import { showCluster } from "./gallery.js";
import { categoryColor } from "./colors.js";
import { small } from "./tiles.js";
import { proposed, startProposals } from "./words.js";

const chosen = new Set(); // ids of clusters to be merged

const present = () => state.atlas.clusters.filter((cluster) => cluster.size);

/** "a, b and c". */
const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

function nameForm(cluster) {
  const input = h("input", { type: "text", value: cluster.name, title: cluster.name, "aria-label": `Name of ${cluster.name}`, autocomplete: "off", readOnly: state.atlas.read_only, data: { testid: `cluster-name-${cluster.id}` } });
  const edit = small(cluster.named ? "Rename…" : "Name…", () => input.select(), { class: "small writes", "aria-label": `${cluster.named ? "Rename" : "Name"}… ${cluster.name}`, data: { testid: `cluster-edit-${cluster.id}` } });
  const save = h("button", { type: "submit", class: "small", hidden: true }, "Save");
  input.addEventListener("input", () => { edit.hidden = input.value.trim() !== cluster.name; save.hidden = !edit.hidden; });
  return h("form", {
    class: "row", onsubmit: (event) => {
      event.preventDefault();
      busy(save, () => decide({ kind: "name", cluster: cluster.id, value: input.value.trim() }));
    },
  }, input, edit, save);
}

function chooser(cluster) {
  const box = h("input", {
    type: "checkbox", checked: chosen.has(cluster.id), "aria-label": `Choose ${cluster.name} to merge it`, data: { testid: `cluster-choose-${cluster.id}` },
    onchange: () => { if (box.checked) chosen.add(cluster.id); else chosen.delete(cluster.id); drawMerge(); },
  });
  return h("label", { class: "tile-check writes" }, box);
}

function about(cluster) {
  const parts = cluster.parts.length > 1 ? `, merged from ${listed(cluster.parts)}` : "";
  const number = cluster.name === `cluster ${cluster.id}` ? "" : `number ${cluster.id} · `;
  return `${number}${images(cluster.size)}${parts}`;
}

function splitButton(cluster) {
  if (cluster.parts.length < 2) return null;
  return small("Split", (event) => busy(event.currentTarget, () => decide({ kind: "split", cluster: cluster.id })),
    { class: "small writes", "aria-label": `Split ${cluster.name} again`, data: { testid: `cluster-split-${cluster.id}` } });
}

function item(cluster) {
  const picture = h("button", { type: "button", class: "typical", "aria-label": `Show the ${images(cluster.size)} of ${cluster.name} in the gallery`, title: "Show all in the gallery", data: { testid: `cluster-typical-${cluster.id}` }, onclick: () => showCluster(cluster.id) },
    cluster.typical.map((row) => h("img", { src: api.thumbnail(row), alt: "", loading: "lazy" })));
  const select = small("Select", () => guarded(() => selectCluster(cluster.id)), { "aria-label": `Select the ${images(cluster.size)} of ${cluster.name}` });
  const made = h("li", { class: "cluster tile", data: { testid: "cluster" } }, h("div", { class: "tile-picture" }, picture, chooser(cluster)),
    h("div", {}, nameForm(cluster), proposed(cluster), h("p", {}, about(cluster)), h("div", { class: "quick" }, select, splitButton(cluster))));
  made.style.setProperty("--k", categoryColor(cluster.id));
  return made;
}

function drawMerge() {
  const known = present().filter((cluster) => chosen.has(cluster.id));
  byId("merge-bar").hidden = state.atlas.read_only || !known.length;
  byId("merge").disabled = known.length < 2;
  byId("merge-names").textContent = known.length < 2 ? `${listed(known.map((one) => one.name))}: choose at least one more to merge with it.` : `Merge ${listed(known.map((one) => one.name))}?`;
}

/** Offers to label images by the names of their clusters as soon as there is a name. */
function offerNames() {
  byId("names-as-labels").hidden = state.atlas.read_only || !present().some((cluster) => cluster.named);
}

function draw() {
  // Saving a name draws the list again; the focus goes back to where it was.
  const focused = document.activeElement?.closest?.("#clusters")?.contains(document.activeElement) ? document.activeElement.dataset.testid : null;
  const ids = new Set(present().map((cluster) => cluster.id));
  for (const id of chosen) if (!ids.has(id)) chosen.delete(id);
  byId("clusters").replaceChildren(...present().map(item));
  if (focused) byId("clusters").querySelector(`[data-testid="${focused}"]`)?.focus();
  drawMerge();
  offerNames();
}

async function merge() {
  const clusters = [...chosen].sort((one, other) => one - other);
  await decide({ kind: "merge", clusters });
  chosen.clear();
  draw();
  byId("clusters").querySelector(`[data-testid="cluster-name-${clusters[0]}"]`)?.focus();
}

/** Connects the list. */
export function startClusters() {
  byId("names-as-labels").addEventListener("click", (event) => busy(event.currentTarget, () => decide({ kind: "label_by_names" })));
  byId("merge").addEventListener("click", (event) => busy(event.currentTarget, merge).then(drawMerge));
  byId("merge-cancel").addEventListener("click", () => { chosen.clear(); draw(); say("No cluster is chosen."); });
  on("atlas", draw);
  draw();
  startProposals(draw);
}
