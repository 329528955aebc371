// Exports: what is downloaded of some images, and as what.
import * as api from "./api.js";
import { byId, h, busy, images, say } from "./dom.js";

let asked = null; // {rows} or {filters}

/** Asks as what to export: `what` is {rows} or {filters} of n images. */
export function offerExport(what, n) {
  asked = what;
  byId("export-title").textContent = `Export ${images(n)}`;
  byId("export-error").textContent = "";
  byId("export-dialog").showModal();
}

async function download() {
  const format = new FormData(byId("export-form")).get("format");
  try {
    const { id } = await api.prepareExport({ ...asked, format });
    h("a", { href: api.exported(id), download: "" }).click();
    byId("export-dialog").close();
    say("The download has begun.");
  } catch (error) {
    if (error.name !== "ApiError") throw error;
    byId("export-error").textContent = error.message; // a toast would lie below the dialog
  }
}

/** Connects the dialog. */
export function startExports() {
  byId("export-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy(byId("export-download"), download);
  });
  // Escape closes the dialog, and must not clear the selection as well.
  byId("export-dialog").addEventListener("keydown", (event) => { if (event.key === "Escape") event.stopPropagation(); });
  byId("export-cancel").addEventListener("click", () => byId("export-dialog").close());
}
