// The bar of the selected images, undo and redo, and the list of known labels.
import { byId, h, busy, debounced, guarded, images, say } from "./dom.js";
import { state, on, decide, step, go, column } from "./state.js";
import { likeThese } from "./search.js";
import { showRows } from "./gallery.js";
import { offerExport } from "./exports.js";

function drawBar() {
  const n = state.selection.size;
  byId("selection-bar").hidden = n === 0;
  byId("selection-count").textContent = `${images(n)} selected`;
  offerTakingBack();
}

/** Offers to take labels away and to put images back only where there is something to take away. */
const offerTakingBack = debounced(() => guarded(async () => {
  const rows = state.selection.rows();
  for (const [id, name] of [["selection-unlabel", "label"], ["selection-put-back", "left_out"]]) {
    const values = await column(name);
    byId(id).hidden = !rows.some((row) => values[row] >= 0);
  }
}), 100);

function drawAtlas() {
  const { atlas } = state;
  for (const direction of ["undo", "redo"]) {
    const button = byId(direction);
    const name = direction === "undo" ? "Undo" : "Redo";
    const text = atlas[direction];
    button.disabled = !text;
    button.title = text ? `${name}: ${text}` : `Nothing to ${direction}`;
    button.setAttribute("aria-label", text ? `${name}: ${text}` : name);
  }
  byId("known-labels").replaceChildren(...atlas.labels.map(({ label }) => h("option", { value: label })));
  document.body.classList.toggle("read-only", atlas.read_only);
  offerTakingBack();
}

/** Undoes or redoes, by button or key. */
function connectSteps() {
  for (const direction of ["undo", "redo"]) byId(direction).addEventListener("click", (event) => busy(event.currentTarget, () => step(direction)).then(drawAtlas));
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    const direction = key === "z" ? (event.shiftKey ? "redo" : "undo") : key === "y" ? "redo" : null;
    // In a field with text, the keys undo typing.
    if (!direction || (event.target.matches?.("input[type=text], input[type=search], input[type=number]") && event.target.value)) return;
    event.preventDefault();
    guarded(() => step(direction));
  });
}

/** Connects the bar. */
export function startSelection() {
  byId("label-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const input = byId("label-input");
    const value = input.value.trim();
    if (!value) { say("Write a label first."); input.focus(); return; }
    busy(byId("label-apply"), async () => {
      await decide({ kind: "label", rows: state.selection.rows(), value });
      input.value = "";
    });
  });
  byId("selection-unlabel").addEventListener("click", (event) => busy(event.currentTarget, () => decide({ kind: "label", rows: state.selection.rows(), value: null })));
  byId("selection-leave-out").addEventListener("click", (event) => busy(event.currentTarget, () => decide({ kind: "leave_out", rows: state.selection.rows(), value: true })));
  byId("selection-put-back").addEventListener("click", (event) => busy(event.currentTarget, () => decide({ kind: "leave_out", rows: state.selection.rows(), value: false })));
  byId("selection-like").addEventListener("click", () => likeThese(state.selection.rows()));
  byId("selection-export").addEventListener("click", () => offerExport({ rows: state.selection.rows() }, state.selection.size));
  byId("selection-gallery").addEventListener("click", () => { showRows(state.selection.rows()); go("gallery"); });
  byId("selection-clear").addEventListener("click", () => state.selection.clear());
  connectSteps();
  on("selection", drawBar);
  on("atlas", drawAtlas);
  drawAtlas();
}
