// Restoring the picture: denoise, upscale, enhance; each says when it is better left alone.
import * as api from "./api.js";
import { byId, h, guarded, say } from "./dom.js";
import { on } from "./state.js";
import { work, runner, fileName, amount, download } from "./workpiece.js";
import { comparison } from "./compare.js";

const NAMES = { denoise: ["original", "denoised"], upscale: ["bicubic", "upscaled"], enhance: ["original", "enhanced"] };
const SOURCES = {
  denoise: [["image", "this picture"], ["atlas", "the whole atlas"]],
  upscale: [["image", "this picture"], ["atlas", "the whole atlas"]],
  enhance: [["atlas", "the whole atlas"], ["image", "other photographs"]],
};
const HINTS = {
  denoise: "Measures the noise, and learns to remove it from noisy images alone: from this picture within a minute or two, from the whole atlas better, in minutes.",
  upscale: "Learns what is lost when images are scaled down. One picture is enough; the whole atlas and two minutes are better.",
  enhance: "Corrects exposure, contrast and color casts by what is typical of the images. Good pictures are left alone.",
};
const runs = runner("restoring");
const shown = comparison("The picture before and after");
let kind = "denoise";

function choose(next) {
  kind = next;
  for (const name of Object.keys(NAMES)) byId(`restore-${name}`).setAttribute("aria-pressed", String(name === kind));
  byId("restore-from").replaceChildren(...SOURCES[kind].map(([value, name]) => h("option", { value }, name)));
  byId("restore-from-name").textContent = kind === "enhance" ? "Compare with" : "Learn from";
  byId("restore-hint").textContent = HINTS[kind];
  byId("restore-learning").hidden = kind === "enhance";
  byId("restore-scaling").hidden = kind !== "upscale";
  byId("restore-correcting").hidden = kind !== "enhance";
}

function draw(result) {
  shown.show({ ...result, names: NAMES[result.kind] });
  const [first, ...others] = result.sentences;
  byId("restore-told").replaceChildren(
    h("p", { class: "verdict", data: { testid: "restore-verdict" } }, first),
    ...[...others, ...result.notes].map((sentence) => h("p", {}, sentence)),
    result.changed ? h("p", {}, download(`Download (${amount(result.bytes)})`, result.file, fileName(result.suffix))) : "");
  say(first);
}

async function restore() {
  const body = {
    kind, learn_from: byId("restore-from").value, budget: byId("restore-budget").value, scale: Number(byId("restore-scale").value),
    strength: Number(byId("restore-strength").value), white_balance: byId("restore-balance").checked,
  };
  const { piece } = work;
  byId("restore-told").replaceChildren();
  const result = await runs.run(() => api.restorePiece(piece.id, body));
  if (piece === work.piece) draw(result);
}

function clear() {
  runs.stop();
  if (work.piece) shown.alone(work.piece);
  byId("restore-told").replaceChildren();
}

/** Connects the task. */
export function startRestore() {
  for (const name of Object.keys(NAMES)) byId(`restore-${name}`).addEventListener("click", () => choose(name));
  byId("restore-form").addEventListener("submit", (event) => { event.preventDefault(); guarded(restore); });
  byId("restore-strength").addEventListener("input", () => { byId("restore-strength-value").textContent = Number(byId("restore-strength").value).toFixed(2); });
  byId("restore-told").before(runs.element);
  byId("restore-stage").append(shown.element);
  on("piece", clear);
  choose("denoise");
  clear();
}
