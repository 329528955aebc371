// The tools that select on the map: lasso and box, drawn on an SVG over the canvas.
import { state, emit } from "./state.js";
import { byId, say, images, isTyping } from "./dom.js";

const TOOLS = { h: "pan", l: "lasso", b: "box", n: "create" };
const CLICK = 5; // pixels that a hand may tremble in a click

let tool = "pan";
let drag = null;

/** The tool that is chosen. */
export const chosenTool = () => tool;

/** Chooses the tool: pan, lasso, box, or create, with which a click makes new images. */
export function chooseTool(name) {
  tool = name;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  byId("map-stage").dataset.tool = name;
  emit("tool", name);
}

function outline(box) {
  const [x1, y1, x2, y2] = [box.points[0][0], box.points[0][1], box.points.at(-1)[0], box.points.at(-1)[1]];
  return box.tool === "box" ? [[x1, y1], [x2, y1], [x2, y2], [x1, y2]] : box.points;
}

function draw() {
  byId("map-lasso").setAttribute("points", drag ? outline(drag).map((point) => point.join(",")).join(" ") : "");
}

const modeOf = (event) => (event.altKey ? "remove" : event.ctrlKey || event.metaKey ? "add" : "replace");

/** Connects pointer and keys. `map` has pick, unproject, and rowsInPolygon; `click(row, event)` hears of clicks. */
export function connectTools(stage, map, click) {
  const at = (event) => {
    const frame = stage.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  const onCanvas = (event) => event.target === byId("map-canvas");

  // Listening while the event is on its way down keeps it from deck.gl's own panning.
  stage.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary && drag) drag.moved = true; // two fingers: no click
    if (!onCanvas(event) || event.button !== 0 || !event.isPrimary) return;
    byId("map-canvas").focus({ preventScroll: true });
    const drawing = tool === "lasso" || tool === "box" || event.shiftKey;
    drag = { tool: !drawing ? "pan" : tool === "box" && !event.shiftKey ? "box" : "lasso", points: [at(event)], moved: false, id: event.pointerId };
    if (!drawing) return;
    event.stopPropagation();
    stage.setPointerCapture(event.pointerId);
  }, true);

  stage.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerId !== drag.id) return;
    const point = at(event);
    const [x, y] = drag.points[0];
    if (Math.hypot(point[0] - x, point[1] - y) > CLICK) drag.moved = true;
    if (drag.tool === "pan") return;
    event.stopPropagation();
    drag.points.push(point);
    if (drag.moved) draw();
  }, true);

  stage.addEventListener("pointerup", (event) => {
    if (!drag || event.pointerId !== drag.id) return;
    const done = drag;
    drag = null;
    draw();
    if (!done.moved) {
      const row = map.pick(...done.points[0]);
      click(row, event);
    } else if (done.tool !== "pan") {
      event.stopPropagation();
      const rows = map.rowsInPolygon(outline(done).map(([x, y]) => map.unproject(x, y)));
      state.selection.change(rows, modeOf(event));
      say(`${images(state.selection.size)} selected.`);
    }
  }, true);

  stage.addEventListener("pointercancel", () => { drag = null; draw(); }, true);

  document.addEventListener("keydown", (event) => {
    if (state.route.view !== "map" || isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const chosen = TOOLS[event.key];
    if (chosen && !document.querySelector(`[data-tool="${chosen}"]`).hidden) chooseTool(chosen);
  });
  for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => chooseTool(button.dataset.tool));
}

/** Gives up the drawing under way; whether there was one. */
export function cancelDrawing() {
  const was = drag !== null && drag.tool !== "pan";
  drag = null;
  draw();
  return was;
}
