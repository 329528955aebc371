// The view Work: one picture, its segments, restoring it, compressing it. This module opens the picture and holds the tasks.
import * as api from "./api.js";
import { byId, busy, guarded, count, toast } from "./dom.js";
import { state, on, go } from "./state.js";
import { work, openPiece, amount } from "./workpiece.js";
import { startSegments, showSegments } from "./work_segments.js";
import { startRestore } from "./work_restore.js";
import { startCompress } from "./work_compress.js";

const TASKS = ["segments", "restore", "compress"];

function chooseTask(task) {
  for (const name of TASKS) {
    byId(`work-task-${name}`).setAttribute("aria-pressed", String(name === task));
    byId(`work-${name}`).hidden = name !== task;
  }
  if (task === "segments") showSegments();
}

function facts(piece) {
  const size = `${count(piece.width)} × ${count(piece.height)}`;
  const kind = `${piece.format}, ${piece.channels === 1 ? "1 channel" : `${piece.channels} channels`} of ${piece.dtype}`;
  return `${size} pixels, ${kind}${piece.bytes ? `, ${amount(piece.bytes)}` : ""}`;
}

function drawPiece() {
  const { piece } = work;
  byId("work-chosen").hidden = piece === null;
  byId("work-body").hidden = byId("work-tasks").hidden = piece === null;
  byId("work-intro").hidden = piece !== null;
  if (piece === null) return;
  byId("work-thumbnail").src = piece.picture;
  byId("work-name").textContent = piece.name;
  byId("work-facts").textContent = facts(piece);
  byId("work-reduced").hidden = piece.full === null;
  if (piece.full) byId("work-reduced").textContent = `Reduced from ${piece.full.map(count).join(" × ")} pixels, as are all results. The commands of imatlas work at full size.`;
}

function offerOpenImage() {
  byId("work-open").hidden = state.route.image === null || state.route.image === work.row;
}

async function takeFile(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) { toast(`${file.name} is not a picture.`); return; }
  const { id } = await api.upload(file);
  await openPiece({ upload: id, name: file.name });
}

/** Goes to the view with this image of the atlas. */
export function workOn(row) {
  go("work", null);
  return guarded(() => openPiece({ row }));
}

function connectChoice() {
  const zone = byId("work-choose");
  byId("work-file").addEventListener("change", (event) => { guarded(() => takeFile(event.target.files[0])); event.target.value = ""; });
  const over = (event) => { event.preventDefault(); zone.classList.toggle("over", event.type === "dragover"); };
  zone.addEventListener("dragover", over);
  zone.addEventListener("dragleave", over);
  zone.addEventListener("drop", (event) => { over(event); guarded(() => takeFile(event.dataTransfer.files[0])); });
  byId("work-open").addEventListener("click", (event) => busy(event.currentTarget, () => openPiece({ row: state.route.image })).then(offerOpenImage));
}

/** Connects the view. */
export function startWork() {
  for (const task of TASKS) byId(`work-task-${task}`).addEventListener("click", () => chooseTask(task));
  connectChoice();
  startSegments();
  startRestore();
  startCompress();
  on("piece", drawPiece);
  on("piece", offerOpenImage);
  on("route", offerOpenImage);
  drawPiece();
}
