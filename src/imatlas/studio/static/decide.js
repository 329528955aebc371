// The decisions of a person, in four tabs; this module holds the tabs and the list of clusters.
import * as api from "./api.js";
import { byId, h, busy, guarded, images } from "./dom.js";
import { state, on, decide, openImage, selectCluster } from "./state.js";
import { categoryColor } from "./colors.js";
import { small } from "./tiles.js";
import { startLabels } from "./labels.js";
import { startOutliers, showOutliers } from "./outliers.js";
import { startDuplicates } from "./duplicates.js";
import { proposed, startProposals } from "./words.js";

const tabs = [...document.querySelectorAll('#view-decide [role="tab"]')];

function chooseTab(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-outliers") showOutliers();
}

function onTabKey(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -tabs.length, End: tabs.length };
  if (!(event.key in steps)) return;
  const next = Math.max(0, Math.min(tabs.length - 1, tabs.indexOf(event.target) + steps[event.key]));
  tabs[next].focus();
  chooseTab(tabs[next]);
  event.preventDefault();
}

function clusterItem(cluster) {
  const input = h("input", { type: "text", value: cluster.name, "aria-label": `Name of ${cluster.name}`, autocomplete: "off", readOnly: state.atlas.read_only, data: { testid: `cluster-name-${cluster.id}` } });
  const save = h("button", { type: "submit", class: "small", hidden: true }, "Save");
  input.addEventListener("input", () => { save.hidden = input.value.trim() === cluster.name; });
  const form = h("form", {
    class: "row", onsubmit: (event) => {
      event.preventDefault();
      busy(save, () => decide({ kind: "name", cluster: cluster.id, value: input.value.trim() }));
    },
  }, input, save);
  const item = h("li", { class: "cluster", data: { testid: "cluster" } },
    h("button", { type: "button", class: "tile-open", "aria-label": `Open the most typical image of ${cluster.name}`, onclick: () => openImage(cluster.medoid) }, h("img", { src: api.thumbnail(cluster.medoid), alt: "", loading: "lazy" })),
    h("div", {}, form, proposed(cluster), h("p", {}, images(cluster.size)), small("Select", () => guarded(() => selectCluster(cluster.id)), { "aria-label": `Select the ${images(cluster.size)} of ${cluster.name}` })));
  item.style.setProperty("--k", categoryColor(cluster.id));
  return item;
}

function drawClusters() {
  // Saving a name draws the list again; the focus goes back to the field where it was.
  const typing = document.activeElement?.closest?.("#clusters input");
  const name = typing?.dataset.testid;
  byId("clusters").replaceChildren(...state.atlas.clusters.filter((cluster) => cluster.size).map(clusterItem));
  if (name) byId("clusters").querySelector(`[data-testid="${name}"]`)?.focus();
}

/** Connects the view of decisions. */
export function startDecide() {
  for (const tab of tabs) {
    tab.addEventListener("click", () => chooseTab(tab));
    tab.addEventListener("keydown", onTabKey);
  }
  on("atlas", drawClusters);
  drawClusters();
  startProposals(drawClusters);
  startLabels();
  startOutliers();
  startDuplicates();
}
