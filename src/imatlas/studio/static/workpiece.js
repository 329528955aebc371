// What the parts of the view Work share: the picture that is worked on, and the work under way.
import * as api from "./api.js";
import { h, guarded, say, toast } from "./dom.js";
import { emit } from "./state.js";

/** The picture that is worked on, as the server describes it, and the image of the atlas that it is, if any. */
export const work = { piece: null, row: null };

/** Opens another picture: {row} or {upload, name}. */
export async function openPiece(body) {
  const piece = await api.openPiece(body);
  Object.assign(work, { piece, row: body.row ?? null });
  emit("piece");
  say(`${piece.name} is open.`);
}

/** The name of a file that is made of the picture. */
export const fileName = (ending) => `${work.piece.name.split("/").pop().replace(/\.[^.]+$/, "")}${ending}`;

/** Bytes in words: "12.3 kB". */
export function amount(bytes) {
  const [value, unit] = bytes < 1000 ? [bytes, "bytes"] : bytes < 1e6 ? [bytes / 1e3, "kB"] : [bytes / 1e6, "MB"];
  return `${unit === "bytes" || value >= 100 ? Math.round(value) : value.toFixed(value < 10 ? 2 : 1)} ${unit}`;
}

/** A link that downloads a file. */
export const download = (text, href, name) => h("a", { class: "button", href, download: name, data: { testid: "download" } }, text);

/** {element, run(begin)}: work on the server, one piece of it at a time, with its progress and a way to cancel it. */
export function runner(what) {
  let current = null; // {cancel}
  const bar = h("progress", { max: 1, "aria-label": `Progress: ${what}` });
  const line = h("p", { class: "hint", role: "status" });
  const cancel = h("button", { type: "button", class: "small", data: { testid: "work-cancel" } }, "Cancel");
  const element = h("div", { class: "running", hidden: true, data: { testid: "running" } }, bar, line, cancel);

  function stop() {
    const { cancel: end } = current ?? {};
    current = null;
    element.hidden = true;
    if (end) guarded(end);
  }

  async function run(begin) {
    stop();
    const mine = { cancel: null };
    current = mine;
    bar.removeAttribute("value");
    line.textContent = "Starting…";
    element.hidden = false;
    try {
      const result = await api.resultOf(await begin(), (event) => {
        if (mine !== current) return;
        if (event.progress === null) bar.removeAttribute("value"); else bar.value = event.progress;
        line.textContent = `${event.line}…`;
      }, (end) => {
        mine.cancel = end;
        if (mine !== current) guarded(end);
      });
      if (mine !== current) throw new DOMException("replaced by other work", "AbortError");
      return result;
    } finally {
      if (mine === current) { current = null; element.hidden = true; }
    }
  }

  cancel.addEventListener("click", () => { stop(); toast("Cancelled.", "note"); });
  return { element, run, stop };
}
