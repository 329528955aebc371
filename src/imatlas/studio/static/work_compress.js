// Compressing the picture: bytes and quality beside other formats, and what is lost.
import * as api from "./api.js";
import { byId, h, guarded, say } from "./dom.js";
import { on } from "./state.js";
import { work, runner, fileName, amount, download } from "./workpiece.js";
import { comparison } from "./compare.js";

const runs = runner("compressing");
const shown = comparison("The picture before and after compression");

function row(one, own) {
  const times = one.bytes / own.bytes;
  const relative = one === own ? "" : times >= 10 ? `${Math.round(times)} ×` : `${times.toFixed(2)} ×`;
  const level = one.psnr === undefined ? "" : one.psnr === null ? "no loss" : `${one.psnr.toFixed(1)} dB`;
  return h("tr", { data: { testid: "size" } }, h("th", { scope: "row" }, one === own ? "imatlas (.imc)" : one.name),
    ...[amount(one.bytes), relative, one.bits.toFixed(2), level].map((text) => h("td", { class: "number" }, text)));
}

function draw(result, lossless) {
  const [own] = result.rows;
  shown.show({ ...result, names: ["original", "compressed"] });
  shown.element.hidden = false;
  byId("compress-rows").replaceChildren(...result.rows.map((one) => row(one, own)));
  byId("compress-table").hidden = false;
  byId("compress-note").textContent = result.rows.length === 1 || result.rows[1].psnr === undefined ? "WebP and AVIF hold gray and color pictures of 8 bits only."
    : `The others are the smallest files ${lossless ? "without loss" : "that are at least as close to the original"}. All bytes are counted.`;
  byId("compress-download").replaceChildren(download(`Download .imc (${amount(own.bytes)})`, result.file, fileName(".imc")));
  say(`Compressed to ${amount(own.bytes)}.`);
}

async function compress() {
  const { piece } = work;
  const lossless = byId("compress-lossless").checked;
  const body = { quality: Number(byId("compress-quality").value), lossless };
  const result = await runs.run(() => api.compressPiece(piece.id, body));
  if (piece === work.piece) draw(result, lossless);
}

function drawQuality() {
  byId("compress-quality-value").textContent = byId("compress-quality").value;
  byId("compress-quality").disabled = byId("compress-lossless").checked;
}

function clear() {
  runs.stop();
  shown.element.hidden = true;
  byId("compress-table").hidden = true;
  byId("compress-note").textContent = "";
  byId("compress-download").replaceChildren();
}

/** Connects the task. */
export function startCompress() {
  byId("compress-form").addEventListener("submit", (event) => { event.preventDefault(); guarded(compress); });
  byId("compress-quality").addEventListener("input", drawQuality);
  for (const id of ["compress-quality", "compress-lossless"]) {
    byId(id).addEventListener("change", () => { drawQuality(); if (!byId("compress-table").hidden) guarded(compress); });
  }
  byId("compress-form").append(runs.element);
  byId("compress-stage").prepend(shown.element);
  on("piece", clear);
  drawQuality();
  clear();
}
