// Words of the network that people's labels have trained: names to propose for clusters, and images by a word.
import * as api from "./api.js";
import { byId, h, busy, withProgress, images, say } from "./dom.js";
import { state, decide } from "./state.js";
import { small } from "./tiles.js";

const K = 60;
const MOST_NAMES = 12; // that are listed of the classes that match a word
const LEAST_SHARE = 0.2; // of a word that is worth proposing

let proposals = null; // for each cluster: words with their share, the best first

const percent = (share) => `${Math.round(100 * share)} %`;

/** Buttons that take a proposed word as the name of a cluster. */
export function proposed(cluster) {
  if (proposals === null) return null;
  const words = (proposals[cluster.id] ?? []).filter(({ share }) => share >= LEAST_SHARE);
  if (!words.length) return cluster.named ? null : h("p", { class: "hint" }, "No word stands out.");
  const others = words.filter(({ word }) => word !== cluster.name);
  if (!others.length) return null;
  return h("ul", { class: "quick writes", "aria-label": `Names proposed for ${cluster.name}` }, others.map(({ word, share }) =>
    h("li", {}, small(`${word} ${percent(share)}`, (event) => busy(event.currentTarget, () => decide({ kind: "name", cluster: cluster.id, value: word })),
      { "aria-label": `Name it ${word}; its mean probability here is ${percent(share)}`, data: { testid: "proposed-name" } }))));
}

/** Connects the button that proposes names; `draw` draws the clusters again. */
export function startProposals(draw) {
  const [button, note] = [byId("words-propose"), byId("words-note")];
  button.hidden = !state.atlas.can.words || state.atlas.read_only;
  button.addEventListener("click", () => busy(button, () => withProgress(byId("words-progress"), async (onprogress) => {
    note.textContent = "Looking at all images…";
    try {
      const result = await api.resultOf(await api.proposeNames(), (event) => { onprogress(event); note.textContent = event.line; });
      proposals = result.clusters;
      note.textContent = result.note;
    } catch (error) {
      note.textContent = "";
      throw error;
    }
    say(note.textContent);
    draw();
  })));
}

/** Says which of the network's classes contain a word. */
function tellNames(word, names) {
  const more = names.length - MOST_NAMES;
  const listed = names.slice(0, MOST_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
  byId("word-names").textContent = names.length === 1 ? `One of the 1,000 classes matches: ${listed}.` : `${names.length} of the 1,000 classes match “${word}”: ${listed}.`;
}

/** Connects the field for a word; `show(results, sentence)` shows what was found. */
export function startWordSearch(show) {
  const form = byId("word-form");
  form.hidden = !state.atlas.can.words;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const word = byId("word").value.trim();
    if (!word) return;
    busy(form.querySelector("button"), async () => {
      show([], `Looking for “${word}”…`);
      try {
        const { results, names } = await api.resultOf(await api.findWord({ word, k: K }), () => null);
        show(results.map((one) => ({ ...one, caption: `${one.name}, ${percent(one.probability)} probable` })), `The ${images(results.length)} that “${word}” fits best`);
        tellNames(word, names);
      } catch (error) {
        show([], `“${word}” was not found.`);
        throw error;
      }
    });
  });
}
