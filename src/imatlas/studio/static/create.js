// The view Create: what to make, of which images, with which settings.
import * as api from "./api.js";
import { byId, h, guarded, say, toast } from "./dom.js";
import { state, on, go, keysOf } from "./state.js";
import { map } from "./map.js";
import { TOOLS, LACKING, SIDES, lacking } from "./recipes.js";
import { maskPainter } from "./painter.js";
import { showMade, startMade, whenKept, rest } from "./made.js";
import { drawHistory, startHistory } from "./history.js";
import { pickOnMap, startPlace } from "./place.js";
import { savedRecipe } from "./saved.js";

const MOST = 16; // images that can be chosen

let generator = null; // what it can make
let preparing = null;
let tool = TOOLS[0];
let chosen = []; // images: [{row, key}]
let painter = null;
let painted = 0; // pixels of the mask
let cancel = null; // of the job under way

const field = (name) => byId(`create-${name}`);
const can = (what) => !(what in generator.cannot);

// -- what is chosen --------------------------------------------------------------------------------------------------

function chip({ row, key }, i) {
  const remove = () => { chosen.splice(i, 1); drawChosen(); byId("create-images").querySelectorAll("button")[Math.min(i, chosen.length - 1)]?.focus(); };
  return h("li", { class: `chip${i < tool.most ? "" : " unused"}`, title: i < tool.most ? key : `${key}: not used here` },
    h("img", { src: api.thumbnail(row), alt: "" }), h("span", {}, key),
    h("button", { type: "button", class: "icon", "aria-label": `Do not use ${key}`, onclick: remove }, "×"));
}

function drawChosen() {
  byId("create-images").replaceChildren(...chosen.map(chip));
  byId("create-images").hidden = !chosen.length;
  byId("create-open").hidden = state.route.image === null || chosen.some(({ row }) => row === state.route.image);
  byId("create-selection").hidden = !state.selection.size;
  byId("create-none").hidden = !chosen.length;
  drawFields();
}

function add(images) {
  for (const image of images) if (!chosen.some(({ row }) => row === image.row) && chosen.length < MOST) chosen.push(image);
  drawChosen();
  return chosen.length;
}

async function addRows(rows) {
  const some = rows.slice(0, MOST);
  const keys = await keysOf(some);
  add(some.map((row, i) => ({ row, key: keys[i] })));
  if (rows.length > MOST) toast(`At most ${MOST} images are used; these are the first.`, "note");
  say(`${chosen.length} chosen.`);
}

// -- the form --------------------------------------------------------------------------------------------------------

function drawTools() {
  const radios = TOOLS.filter(({ kind }) => can(kind)).map((one) => h("label", { class: "pill" },
    h("input", { type: "radio", name: "create-tool", value: one.kind, checked: one === tool, data: { testid: `tool-of-${one.kind}` }, onchange: () => choose(one) }), h("span", {}, one.title)));
  byId("create-tools").replaceChildren(...radios);
  const titles = { ...Object.fromEntries(TOOLS.map(({ kind, title }) => [kind, title])), ...LACKING };
  const reasons = new Map(); // several things may lack for the same reason
  for (const [what, title] of Object.entries(titles)) if (!can(what)) reasons.set(generator.cannot[what], [...(reasons.get(generator.cannot[what]) ?? []), title]);
  byId("create-cannot").hidden = !reasons.size;
  byId("create-reasons").replaceChildren(...[...reasons].flatMap(([why, all]) => [h("dt", {}, all.join(", ")), h("dd", {}, why)]));
}

function choose(one) {
  tool = one;
  for (const radio of byId("create-tools").querySelectorAll("input")) radio.checked = radio.value === one.kind;
  drawChosen();
}

const isUsed = (name) => tool.fields.includes(name);

/** Shows the settings that matter for the tool and the images. */
function drawFields() {
  if (!generator) return;
  const n = Math.min(chosen.length, tool.most);
  const varies = isUsed("strength") && n > 0 && can("strength");
  for (const box of byId("create-form").querySelectorAll("[data-field]")) box.hidden = !isUsed(box.dataset.field);
  byId("create-hint").textContent = tool.hint;
  field("strength").closest("[data-field]").hidden = !varies;
  const isVariation = varies && Number(field("strength").value) < 1;
  field("tile").closest("[data-field]").hidden = !isUsed("tile") || !can("tile") || isVariation;
  field("novelty").closest("[data-field]").hidden = !isUsed("novelty") || !can("novelty");
  field("novelty-value").textContent = Number(field("novelty").value).toFixed(2);
  field("strength-value").textContent = isVariation ? Number(field("strength").value).toFixed(2) : "new";
  field("join-value").textContent = Number(field("join").value).toFixed(2);
  byId("create-paint").hidden = tool.kind !== "inpaint" || !n;
  byId("create-canvas").hidden = tool.kind !== "extend" || !n;
  if (n && tool.kind === "inpaint") painter.show(api.generatorInput(chosen[0].row), `${chosen[0].key}, to be painted on`);
  if (n && tool.kind === "extend") drawCanvas();
  const missing = lacking(tool, n) || (tool.kind === "inpaint" && !painted ? "Paint over what is to be filled in." : "")
    || (tool.kind === "extend" && !SIDES.some((side) => Number(field(side).value) > 0) ? "Say by how many pixels, on one side at least." : "");
  byId("create-lacking").textContent = missing;
  byId("create-make").disabled = Boolean(missing) || cancel !== null;
}

/** The image on the canvas that it is extended to. */
function drawCanvas() {
  const [top, right, bottom, left] = SIDES.map((side) => Math.max(0, Number(field(side).value) || 0));
  const [width, height] = [left + generator.width + right, top + generator.height + bottom];
  const [box, image] = [byId("create-canvas-box"), byId("create-canvas-image")];
  const source = api.generatorInput(chosen[0].row);
  if (image.getAttribute("src") !== source) image.src = source;
  image.alt = `${chosen[0].key} on a canvas of ${width} by ${height} pixels`;
  box.style.aspectRatio = `${width} / ${height}`;
  Object.assign(image.style, { left: `${(100 * left) / width}%`, top: `${(100 * top) / height}%`, width: `${(100 * generator.width) / width}%`, height: `${(100 * generator.height) / height}%` });
  byId("create-canvas-size").textContent = `${width} × ${height} pixels`;
}

/** The recipe that the form describes. */
function recipeNow() {
  const recipe = { kind: tool.kind, images: chosen.slice(0, tool.most).map(({ key }) => key) };
  const numbers = { n: "n", frames: "frames", directions: "directions", seed: "seed", ...(can("novelty") ? { novelty: "novelty" } : {}) };
  for (const [name, id] of Object.entries(numbers)) if (isUsed(name)) recipe[name] = Number(field(id).value);
  if (isUsed("strength") && recipe.images.length && can("strength")) recipe.strength = Number(field("strength").value);
  if (isUsed("tile") && can("tile") && (recipe.strength ?? 1) === 1) recipe.tile = field("tile").checked;
  if (isUsed("join")) recipe.strength = Number(field("join").value);
  if (isUsed("axis")) recipe.axis = field("axis").value || null;
  if (isUsed("sides")) for (const side of SIDES) recipe[side] = Number(field(side).value);
  if (tool.kind === "inpaint") recipe.mask = painter.get();
  return recipe;
}

/** Fills the form with a recipe that was used before. */
function takeRecipe({ recipe, rows }) {
  chosen = recipe.images.map((key, i) => ({ row: rows[i], key })).filter(({ row }) => row !== null);
  for (const name of ["n", "frames", "directions", "seed", ...SIDES]) if (recipe[name] !== undefined) field(name).value = recipe[name];
  field("novelty").value = recipe.novelty ?? generator.novelty ?? 0.5;
  if (recipe.kind === "blend") Object.assign(field("join"), { value: recipe.strength });
  if (recipe.kind === "blend") field("axis").value = recipe.axis ?? "";
  if (recipe.kind === "sample") Object.assign(field("strength"), { value: recipe.strength });
  if (recipe.kind === "sample") field("tile").checked = recipe.tile;
  if (recipe.kind === "inpaint") painter.set(recipe.mask);
  choose(TOOLS.find(({ kind }) => kind === recipe.kind));
}

// -- making ----------------------------------------------------------------------------------------------------------

async function makeBy(recipe, image = null) {
  byId("create-progress").hidden = false;
  byId("create-cancel").hidden = false;
  cancel = () => null;
  drawFields();
  try {
    const result = await api.resultOf(await api.create(recipe), (event) => { byId("create-line").textContent = `${event.line}…`; }, (stop) => { cancel = stop; });
    showMade(result, image);
    byId("create-made").scrollIntoView({ block: "nearest" });
    await drawHistory();
    return result;
  } finally {
    cancel = null;
    byId("create-progress").hidden = true;
    byId("create-cancel").hidden = true;
    byId("create-line").textContent = "";
    drawFields();
  }
}

/** Makes again what a saved recipe describes. */
async function openSaved(file) {
  const saved = await savedRecipe(file);
  const result = await makeBy(saved.recipe, saved.image);
  takeRecipe(result);
  if (saved.generator && saved.generator !== result.version) toast("The recipe was saved with another generator, so the images differ from those.", "note");
}

/** Goes to the view with this image as the place to create from. */
export function createFrom(row, key) {
  tool = TOOLS[0];
  chosen = [{ row, key }];
  go("create");
  if (generator) choose(tool);
}

/** Asks what can be made, when the view is first seen. */
async function prepare() {
  generator = await api.getGenerator();
  painter = maskPainter(generator.width, generator.height, (n) => { painted = n; drawFields(); });
  byId("create-painter").replaceChildren(painter.element);
  if (generator.novelty !== null) field("novelty").value = generator.novelty;
  byId("create-generator").textContent = `By ${generator.name}, ${generator.width} × ${generator.height} pixels.`;
  drawTools();
  choose(tool);
  byId("create-workshop").hidden = byId("create-saved-label").hidden = false;
}

const prepared = () => (preparing ??= prepare().catch((error) => { preparing = null; throw error; }));

function connectImages() {
  byId("create-center").addEventListener("click", () => guarded(() => addRows([map.centerRow()].filter((row) => row >= 0))));
  byId("create-open").addEventListener("click", () => guarded(() => addRows([state.route.image])));
  byId("create-selection").addEventListener("click", () => guarded(() => addRows(state.selection.rows())));
  byId("create-pick").addEventListener("click", () => pickOnMap((image) => add([image])));
  byId("create-none").addEventListener("click", () => { chosen = []; drawChosen(); });
  on("selection", drawChosen);
}

/** Connects the view. */
export function startCreate() {
  const possible = state.atlas.can.create;
  byId("create-impossible").hidden = possible;
  byId("create-form").addEventListener("submit", (event) => { event.preventDefault(); if (!byId("create-make").disabled) guarded(() => makeBy(recipeNow())); });
  byId("create-form").addEventListener("input", drawFields);
  byId("create-cancel").addEventListener("click", () => guarded(async () => { await cancel?.(); toast("No new images were made.", "note"); }));
  byId("create-saved").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) guarded(() => openSaved(file));
    event.target.value = "";
  });
  byId("create-dice").addEventListener("click", () => { field("seed").value = Math.floor(Math.random() * 1e6); });
  connectImages();
  startMade();
  whenKept(() => guarded(drawHistory));
  startHistory(takeRecipe);
  startPlace((result) => { go("create"); guarded(async () => { await prepared(); takeRecipe(result); showMade(result); }); });
  on("route", () => {
    if (state.route.view !== "create") { rest(); return; }
    if (!possible) return;
    drawChosen();
    guarded(async () => { await prepared(); await drawHistory(); });
  });
}

