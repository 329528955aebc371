// New images from a place on the map: a card beside the place, made by the tool "Create" of the map.
import * as api from "./api.js";
import { byId, h, guarded, say } from "./dom.js";
import { state, on, go, keysOf } from "./state.js";
import { chooseTool } from "./lasso.js";

const N = 4;
const SIZE = { width: 300, height: 410 }; // of the card, at most
const GAP = 18;

let chosen = null; // {row, key} of the card on show
let seed = 0;
let picking = null; // hears of a place that is chosen for the view Create, instead of making images there

const card = byId("place-card");

function close() {
  const had = card.contains(document.activeElement);
  card.hidden = true;
  chosen = null;
  if (had) byId("map-canvas").focus({ preventScroll: true });
}

function putAt([x, y]) {
  const stage = byId("map-stage");
  const left = x + GAP + SIZE.width < stage.clientWidth ? x + GAP : Math.max(8, x - GAP - SIZE.width);
  const top = Math.max(56, Math.min(stage.clientHeight - SIZE.height - 8, y - SIZE.height / 2));
  card.style.translate = `${left}px ${top}px`;
}

function draw(content, buttons) {
  card.replaceChildren(
    h("div", { class: "place-head" }, h("span", { class: "chip" }, h("img", { src: api.thumbnail(chosen.row), alt: "" }), h("span", {}, chosen.key)),
      h("button", { type: "button", class: "icon", "aria-label": "Close", title: "Close (Escape)", onclick: close }, "×")),
    content, h("div", { class: "actions" }, buttons));
}

async function makeHere(toCreate) {
  const { row, key } = chosen;
  const waiting = () => h("ul", { class: "four", "aria-busy": "true" }, Array.from({ length: N }, () => h("li", {})));
  draw(waiting(), []);
  const recipe = { kind: "sample", images: [key], n: N, seed };
  const result = await guarded(async () => api.resultOf(await api.create(recipe), () => null));
  if (chosen?.row !== row) return;
  if (!result) { close(); return; }
  const others = h("button", { type: "button", class: "primary", data: { testid: "place-others" }, onclick: () => { seed += N; guarded(() => makeHere(toCreate)); } }, "Make others");
  draw(h("ul", { class: "four", data: { testid: "place-images" } }, Array.from({ length: N }, (_, i) => h("li", {}, h("img", { src: api.made(result, i), alt: `New image ${i + 1}` })))),
    [others, h("button", { type: "button", data: { testid: "place-open" }, onclick: () => { close(); toCreate(result); } }, "Open in Create")]);
  if (document.activeElement === byId("map-canvas") || document.activeElement === document.body) others.focus({ preventScroll: true });
  say(`${N} new images near ${key}.`);
}

/** Lets the next clicks on the map choose images for the view Create. */
export function pickOnMap(picked) {
  picking = picked;
  chooseTool("create");
  go("map");
  say("Click on an image of the map to choose it, or press Enter for the one in the middle.");
}

/** Connects the card; `toCreate(result)` goes on with what was made, in the view Create. */
export function startPlace(toCreate) {
  const tool = document.querySelector('[data-tool="create"]');
  tool.hidden = !state.atlas.can.create;
  tool.addEventListener("click", () => { picking = null; });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || card.hidden) return;
    close();
    event.preventDefault();
  });
  on("route", () => { if (picking && state.route.view !== "map") chooseTool("pan"); });
  on("tool", (name) => { if (name !== "create") { picking = null; close(); } });
  on("place", ({ row, at }) => guarded(async () => {
    if (row < 0) { close(); return; }
    chosen = { row, key: (await keysOf([row]))[0] };
    putAt(at);
    card.hidden = false;
    if (!picking) { seed = 0; await makeHere(toCreate); return; }
    const n = picking(chosen);
    const back = h("button", { type: "button", class: "primary", data: { testid: "place-back" }, onclick: () => go("create") }, "Back to Create");
    draw(h("p", { class: "hint" }, n === 1 ? "Chosen. Click on others to add them." : `Chosen as number ${n}.`), [back]);
    back.focus({ preventScroll: true });
  }));
}
