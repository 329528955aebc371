// The page of a folder that has no atlas yet: what is in it, and learning; then the studio takes its place.
import { followFolder, learn, madeSamples, firstMap, stopLearning } from "./api.js";
import { curve } from "./curve.js";
import { byId, h, busy, count, say, short, toast } from "./dom.js";
import { seconds } from "./time.js";

const STAGES = {
  intake: ["Intake", "reads every image once and finds duplicates"],
  encoder: ["Encoder", "turns each image into numbers that tell what it shows"],
  map: ["Map", "puts similar images side by side"],
  clusters: ["Clusters", "finds groups"],
  outliers: ["Outliers", "tells how unlike the others each image is"],
  layout: ["Layout", "arranges all images in the plane by similarity"],
  generator: ["Generator", "learns to make new images like these"],
  report: ["Report", "measures how good the new images are"],
};
const MARKS = { done: "✓", running: "●", waiting: "○" };
const MODELS = {
  Autoencoder: "Autoencoder", Sharpener: "Sharper images of the autoencoder",
  SelfSupervisedEncoder: "Encoder of these images alone", PatchDiffusion: "Images composed of parts of these",
};
const MOST_STRIPS = 5;

function sentence(event) {
  const last = event.lines.filter((line) => line.trim()).at(-1) ?? "";
  switch (event.state) {
    case "learning": {
      const budget = event.budget ? `; planned: ${seconds(event.budget)} after the intake` : "";
      return `Learning for ${seconds(event.seconds)}${budget}`;
    }
    case "stopped": return "Stopped. What is finished is kept, and the learning goes on from there.";
    case "failed": return `It failed: ${last}`;
    case "done": return "Done; opening the studio…";
    default: return "";
  }
}

/** The share of the time for learning that is used; null while that is not known. */
function share(event) {
  if (!event.budget) return null;
  const used = event.stages.filter((stage) => stage.name !== "intake").reduce((sum, stage) => sum + (stage.seconds ?? 0), 0);
  return Math.min(1, used / event.budget);
}

function stageItem(stage) {
  const [title, what] = STAGES[stage.name] ?? [stage.name, ""];
  const time = stage.state === "waiting"
    ? stage.allowed ? `up to ${seconds(stage.allowed)}` : ""
    : seconds(stage.seconds ?? 0) + (stage.state === "running" && stage.allowed ? ` of up to ${seconds(stage.allowed)}` : "");
  return h("li", { data: { state: stage.state }, "aria-current": stage.state === "running" ? "step" : null },
    h("span", { class: "mark", "aria-hidden": "true" }, MARKS[stage.state]),
    h("div", {},
      h("p", {}, h("strong", {}, title), h("span", { class: "hidden-text" }, ` (${stage.state})`), " ", h("span", { class: "count" }, time)),
      h("p", { class: "hint" }, stage.summary || what)));
}

/** Some of many, the first and the last among them. */
function some(list, most) {
  if (list.length <= most) return list;
  return Array.from({ length: most }, (_, i) => list[Math.round((list.length - 1) * (i / (most - 1)))]);
}

function strip(samples, image) {
  const isTrained = samples.seconds !== null;
  const when = isTrained ? `after ${seconds(samples.seconds)}` : samples.shown === 1 ? "the first one" : "of the finished generator";
  const what = isTrained ? `, step ${count(samples.step)}` : "";
  if (!image.src) image.src = madeSamples(samples.number);
  image.alt = samples.shown === 1 ? "A new image" : `${samples.shown} new images ${when}`;
  return h("li", { data: { testid: "samples" } }, h("span", { class: "hint" }, when + what), image);
}

/** The parts of the page that show one network; kept, so that pictures do not flicker. */
class NetworkView {
  constructor(network) {
    this.images = new Map();
    this.title = h("h2", {}, MODELS[network.model] ?? network.model);
    this.plot = h("div", {});
    this.legend = h("p", { class: "hint curve-legend", hidden: true });
    this.strips = h("ul", { class: "strips" });
    this.node = h("section", {}, this.title, this.plot, this.legend, this.strips);
  }

  show(network) {
    this.#curve(network);
    const shown = some(network.samples, MOST_STRIPS);
    const image = (number) => this.images.get(number) ?? this.images.set(number, h("img", { onerror: (event) => event.target.remove() })).get(number);
    this.strips.replaceChildren(...shown.map((samples) => strip(samples, image(samples.number))));
  }

  #curve(network) {
    const watched = network.held_out.some((value) => value !== null) ? "held_out" : "train";
    const [first, last] = [network[watched].find((value) => value !== null), network[watched].findLast((value) => value !== null)];
    const where = watched === "held_out" ? "Loss on held-out images" : "Loss";
    const words = `${where}: ${short(last)} after ${count(network.step.at(-1) ?? 0)} steps, ${short(first)} at first`;
    const drawn = curve(network, words);
    this.legend.hidden = !drawn;
    if (!drawn) return;
    this.plot.replaceChildren(drawn);
    const key = (name, text) => h("span", { class: `key ${name}` }, text);
    this.legend.replaceChildren(
      ...(network.train.some((value) => value !== null) ? [key("train", "training images"), " "] : []),
      ...(watched === "held_out" ? [key("held_out", "held-out images"), " "] : []), `${words}.`);
  }
}

const views = new Map();
let shownMap = null, wasLearning = false, saidLast = "";

function showPictures(event) {
  byId("map-figure").hidden = !event.map;
  if (event.map && event.map !== shownMap) byId("map").src = firstMap(event.map);
  shownMap = event.map;
  const nodes = event.networks.filter((network) => network.step.length > 1 || network.samples.length).map((network) => {
    const name = `${network.stage} ${network.model}`;
    const view = views.get(name) ?? views.set(name, new NetworkView(network)).get(name);
    view.show(network);
    return view.node;
  }).reverse(); // the latest first
  const box = byId("networks");
  if (nodes.length !== box.children.length || nodes.some((node, i) => node !== box.children[i])) box.replaceChildren(...nodes);
}

function showCheck(event) {
  if (!event.check) return;
  const list = byId("check");
  if (list.dataset.shown) return;
  list.dataset.shown = "yes";
  list.replaceChildren(...event.check.map((text) => h("li", {}, text)));
  byId("skipped-box").hidden = !event.n_skipped;
  const most = event.n_skipped > event.skipped.length ? `, the first ${count(event.skipped.length)}` : "";
  byId("skipped-title").textContent = `Files that are not used (${count(event.n_skipped)}${most})`;
  byId("skipped").replaceChildren(...event.skipped.map(([key, reason]) => h("li", {}, h("code", {}, key), ` ${reason}`)));
}

function showForm(event) {
  const isLearning = event.state === "learning" || event.state === "done";
  const isUnfinished = event.settings !== null;
  byId("wishes").hidden = isLearning || isUnfinished || event.read_only;
  byId("field-box").hidden = !event.asks_field;
  byId("place-box").hidden = !event.may_choose;
  if (!byId("place").value) byId("place").value = event.atlas;
  byId("start").hidden = isLearning || event.read_only;
  byId("start").textContent = isUnfinished ? "Go on" : "Learn";
  byId("stop").hidden = event.state !== "learning";
  const used = isLearning ? share(event) : null;
  byId("done").hidden = used === null;
  if (used !== null) byId("done").value = used;
  byId("state").textContent = sentence(event);
}

/** Tells screen readers of a new stage or state, and not of every second. */
function announce(event) {
  const stage = event.stages.find((each) => each.state === "running");
  const news = stage ? `Stage ${STAGES[stage.name]?.[0] ?? stage.name}` : event.state === "learning" ? "Learning" : sentence(event);
  if (news !== saidLast) say(news);
  saidLast = news;
}

function show(event) {
  byId("name").textContent = event.name;
  byId("source").textContent = event.source;
  byId("atlas").textContent = event.atlas;
  showCheck(event);
  showForm(event);
  const isLearning = event.state === "learning";
  byId("title").textContent = isLearning ? `Learning ${event.name}` : event.settings ? "An unfinished atlas" : "A folder without an atlas";
  if (isLearning && !wasLearning) byId("check-details").open = false;
  wasLearning = isLearning;
  announce(event);
  byId("live").hidden = event.state === "new" && event.stages.every((stage) => stage.state === "waiting");
  byId("stages").replaceChildren(...event.stages.map(stageItem));
  showPictures(event);
  byId("lines-details").hidden = !event.lines.length;
  if (event.state === "failed") byId("lines-details").open = true;
  const lines = byId("lines");
  const isAtEnd = lines.scrollTop + lines.clientHeight > lines.scrollHeight - 8;
  lines.textContent = event.lines.join("\n");
  if (isAtEnd) lines.scrollTop = lines.scrollHeight;
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(byId("start"), async () => show(await learn({
    budget: byId("budget").value || null, encoder: byId("encoder").value, fit: byId("fit").value,
    field: byId("field").value.trim() || null, atlas: byId("place-box").hidden ? null : byId("place").value.trim() || null,
  })));
});
byId("stop").addEventListener("click", () => busy(byId("stop"), async () => show(await stopLearning())));

const events = followFolder((event) => {
  show(event);
  if (event.state !== "done") return;
  events.close();
  location.reload();
}, () => toast("The studio's server does not answer. Is it still running?"));
