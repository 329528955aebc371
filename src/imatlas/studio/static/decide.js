// The decisions of a person, in tabs.
import { byId } from "./dom.js";
import { startClusters } from "./clusters.js";
import { startLabels } from "./labels.js";
import { startOutliers, showOutliers } from "./outliers.js";
import { startDuplicates } from "./duplicates.js";
import { startLeftOut, showLeftOut } from "./left_out.js";

const tabs = [...document.querySelectorAll('#view-decide [role="tab"]')];

function chooseTab(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-outliers") showOutliers();
  if (tab.id === "tab-left-out") showLeftOut();
}

function onTabKey(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -tabs.length, End: tabs.length };
  if (!(event.key in steps)) return;
  const next = Math.max(0, Math.min(tabs.length - 1, tabs.indexOf(event.target) + steps[event.key]));
  tabs[next].focus();
  chooseTab(tabs[next]);
  event.preventDefault();
}

/** Connects the view of decisions. */
export function startDecide() {
  for (const tab of tabs) {
    tab.addEventListener("click", () => chooseTab(tab));
    tab.addEventListener("keydown", onTabKey);
  }
  startClusters();
  startLabels();
  startOutliers();
  startDuplicates();
  startLeftOut();
}
