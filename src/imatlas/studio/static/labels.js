// Labels: how many there are, what they say about the other images, and which images to label next.
import * as api from "./api.js";
import { byId, h, busy, withProgress, guarded, count, images, isTyping, say } from "./dom.js";
import { state, on, setAtlas, decide, column, isMoved, go, selectWhere, describeColumn, keysOf } from "./state.js";
import { colorBy } from "./map.js";
import { tile, small } from "./tiles.js";

const N_NEXT = 24;
const STEP = 24; // predictions shown at a time

let prediction = null; // the server's answer
let accepted = new Set(); // rows whose prediction has been taken over
const openGroups = new Map(); // label -> how many of its predictions are shown

function drawCounts() {
  const { labels } = state.atlas;
  const value = (label) => describeColumn("label").values.indexOf(label);
  byId("label-counts").replaceChildren(...labels.map((one) => h("li", {}, h("span", { class: "name" }, one.label), h("span", { class: "count" }, images(one.count)),
    small("Select", () => guarded(() => selectWhere("label", value(one.label))), { "aria-label": `Select the images labelled ${one.label}` }))));
  byId("labels-none").hidden = labels.length > 0;
  byId("propagate").disabled = labels.length < 2;
  byId("propagate-hint").textContent = labels.length < 2 ? "This needs images of at least two labels." : "";
}

async function give(row, label, item) {
  await decide({ kind: "label", rows: [row], value: label });
  pass(row, item);
}

/** Takes an image off the list. */
function pass(row, item) {
  const next = item.nextElementSibling ?? item.previousElementSibling;
  item.remove();
  prediction.next = prediction.next.filter((other) => other !== row);
  // The keys go on with the next image.
  next?.querySelector(".tile-open")?.focus({ preventScroll: true });
  if (!prediction.next.length) drawPrediction();
}

/** A field for a label that is not among the buttons. */
function otherLabel(row, key, item) {
  const input = h("input", { type: "text", autocomplete: "off", required: true, maxLength: 200, "aria-label": `Another label for ${key}`, data: { testid: "another-label" } });
  input.setAttribute("list", "known-labels");
  const form = h("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const label = input.value.trim();
      if (label) busy(form.querySelector("button"), () => give(row, label, item));
    },
  }, input, h("button", { type: "submit", class: "small" }, "Give"));
  return [form, input];
}

function choices(row, key, item) {
  const another = small("Another…", () => {
    const [form, input] = otherLabel(row, key, item);
    another.replaceWith(form);
    input.focus();
  }, { "aria-label": `Another… label for ${key}`, data: { testid: "another" } });
  const skip = small("Skip", () => pass(row, item), { "aria-label": `Skip ${key}`, title: "Key 0", data: { testid: "skip" } });
  return h("div", { class: "quick writes" }, state.atlas.labels.slice(0, 9).map(({ label }, i) =>
    small(label, (event) => busy(event.currentTarget, () => give(row, label, item)), { "aria-label": `Label ${key} ${label}`, title: `Key ${i + 1}` })), another, skip);
}

function nextItem(row, key) {
  const item = tile(row, key, { checkable: false });
  item.append(choices(row, key, item));
  return item;
}

/** Offers new labels, but leaves alone what is being typed. */
function renewChoices() {
  for (const item of byId("next-images").querySelectorAll(".tile:not(:has(form))")) {
    const open = item.querySelector(".tile-open");
    item.querySelector(".quick").replaceWith(choices(Number(item.dataset.row), open.title, item));
  }
}

function onKey(event) {
  const item = event.target.closest?.("#next-images .tile");
  if (!item || isTyping(event.target) || state.atlas.read_only || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "0") pass(Number(item.dataset.row), item);
  const label = state.atlas.labels[Number(event.key) - 1]?.label;
  if (label) guarded(() => give(Number(item.dataset.row), label, item));
}

/** The predictions of one label that nobody has decided yet, the surest first. */
function predicted(index) {
  const { rows, label_of: labelOf, confidence } = prediction;
  const found = [];
  for (let i = 0; i < rows.length; i++) if (labelOf[i] === index && !accepted.has(rows[i]) && !isMoved(rows[i])) found.push({ row: rows[i], confidence: confidence[i] });
  return found.sort((one, other) => other.confidence - one.confidence);
}

const threshold = () => Number(byId("accept-above").value) / 100;

async function accept(index) {
  const sure = predicted(index).filter((one) => one.confidence >= threshold()).map((one) => one.row);
  if (!sure.length) return;
  for (const row of sure) accepted.add(row);
  await decide({ kind: "label", rows: sure, value: prediction.labels[index].label });
  drawGroups();
}

async function group(index) {
  const { label } = prediction.labels[index];
  const all = predicted(index);
  if (!all.length) return null;
  const shown = all.slice(0, openGroups.get(label) ?? STEP);
  const sure = all.filter((one) => one.confidence >= threshold()).length;
  const keys = await keysOf(shown.map((one) => one.row));
  const section = h("section", { class: "group", data: { testid: "predicted-label" } },
    h("header", {}, h("h3", {}, label), h("p", {}, `${images(all.length)} predicted`),
      h("button", { type: "button", class: "writes", disabled: !sure, data: { testid: `accept-${label}` }, onclick: (event) => busy(event.currentTarget, () => accept(index)) }, `Accept ${count(sure)} of at least ${byId("accept-above").value} %`),
      small("Select all", () => state.selection.change(all.map((one) => one.row)), { "aria-label": `Select all predicted ${label}` })),
    h("ul", { class: "tiles dense" }, shown.map((one, i) => tile(one.row, keys[i], { caption: `${Math.floor(one.confidence * 100)} % sure` }))));
  if (all.length > shown.length) section.append(small("Show more", () => { openGroups.set(label, shown.length + 4 * STEP); drawGroups(); }));
  return section;
}

async function drawGroups() {
  await guarded(async () => {
    const groups = await Promise.all(prediction.labels.map((_, i) => group(i)));
    byId("predicted").replaceChildren(...groups.filter(Boolean));
  });
}

async function drawPrediction() {
  const { labels, label_of: labelOf, confidence, next } = prediction;
  const known = labelOf.reduce((sum, label) => sum + (label >= 0 ? 1 : 0), 0);
  const mean = labels.map((_, i) => confidence.reduce((sum, value, k) => sum + (labelOf[k] === i ? value : 0), 0) / Math.max(1, labelOf.filter((label) => label === i).length));
  byId("prediction").hidden = false;
  byId("prediction-counts").replaceChildren(...labels.map((one, i) => h("tr", {}, h("th", { scope: "row" }, one.label), h("td", { class: "number" }, count(one.given)), h("td", { class: "number" }, count(one.count)), h("td", { class: "number" }, `${Math.round(mean[i] * 100)} %`))));
  byId("next-section").hidden = !next.length;
  const keys = await keysOf(next);
  byId("next-images").replaceChildren(...next.map((row, i) => nextItem(row, keys[i])));
  await drawGroups();
  say(`${images(known)} have a predicted label.`);
}

async function propagate() {
  byId("propagate-hint").textContent = `Predicting the labels of ${images(state.atlas.n_images)}…`;
  const [answer, given] = await Promise.all([api.propagate({ n_next: N_NEXT }), column("label")]);
  prediction = answer;
  setAtlas(answer.atlas); // the map can be colored by what was predicted
  // What a person has labelled needs no prediction.
  accepted = new Set(answer.rows.filter((row) => given[row] >= 0));
  openGroups.clear();
  await drawPrediction();
}

/** Connects the tab of labels. */
export function startLabels() {
  byId("propagate").addEventListener("click", (event) => busy(event.currentTarget, () => withProgress(byId("propagate-progress"), propagate)).then(drawCounts));
  byId("accept-above").addEventListener("input", () => { byId("accept-value").textContent = `${byId("accept-above").value} %`; });
  byId("accept-above").addEventListener("change", () => prediction && drawGroups());
  byId("prediction-map").addEventListener("click", () => { colorBy("predicted"); go("map"); });
  document.addEventListener("keydown", onKey);
  on("atlas", () => { drawCounts(); renewChoices(); });
  drawCounts();
}
