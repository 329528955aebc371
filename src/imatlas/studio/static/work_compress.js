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
  const relative = one === own || one.full ? "" : times >= 10 ? `${Math.round(times)} ×` : `${times.toFixed(2)} ×`;
  const level = one.psnr === undefined ? "" : one.psnr === null ? "no loss" : `${one.psnr.toFixed(1)} dB`;
  return h("tr", { data: { testid: "size" } }, h("th", { scope: "row" }, one.name),
    ...[amount(one.bytes), relative, level].map((text) => h("td", { class: "number" }, text)));
}

function draw(result, lossless) {
  const [own] = result.rows;
  shown.show({ ...result, names: ["original", "compressed"] });
  byId("compress-rows").replaceChildren(...result.rows.map((one) => row(one, own)));
  byId("compress-table").hidden = false;
  const others = result.rows.slice(1).filter((one) => one.psnr !== undefined).map((one) => one.name).join(" and ");
  byId("compress-note").textContent = `${own.bits.toFixed(2)} bits per pixel; all bytes of the file are counted. ${others
    ? `${others}: the smallest file ${lossless ? "without loss" : "that is at least as close to the original"}.` : "WebP and AVIF hold gray and color pictures of 8 bits only."}${work.piece.full ? " The original has more pixels." : ""}`;
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
  if (work.piece) shown.alone(work.piece);
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
  byId("compress-table").before(runs.element);
  byId("compress-stage").append(shown.element);
  on("piece", clear);
  drawQuality();
  clear();
}
