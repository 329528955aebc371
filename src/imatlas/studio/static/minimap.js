// The whole layout in small, with the part that the map shows.

const SIDE = 512; // of the world

let canvas;
let backdrop = null;
let scale;

/** Connects the minimap; `goTo(x, y)` moves the map there. */
export function connectMinimap(element, goTo) {
  canvas = element;
  const move = (event) => {
    const frame = canvas.getBoundingClientRect();
    goTo(((event.clientX - frame.left) / frame.width) * SIDE, ((event.clientY - frame.top) / frame.height) * SIDE);
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
}

/** Draws the points once; the viewport is drawn over them as often as it moves. */
export function drawPoints(positions, colors) {
  scale = Math.min(2, window.devicePixelRatio || 1);
  const side = Math.round(canvas.clientWidth * scale) || 160;
  canvas.width = canvas.height = side;
  backdrop = new ImageData(side, side);
  const pixels = backdrop.data;
  const n = positions.length / 2;
  const dot = Math.max(1, Math.min(4, Math.round(side / Math.sqrt(n) / 3)));
  for (let i = 0; i < n; i++) {
    const left = Math.round((positions[2 * i] / SIDE) * side - dot / 2);
    const top = Math.round((positions[2 * i + 1] / SIDE) * side - dot / 2);
    for (let y = Math.max(0, top); y < Math.min(side, top + dot); y++) {
      for (let x = Math.max(0, left); x < Math.min(side, left + dot); x++) {
        for (let channel = 0; channel < 4; channel++) pixels[4 * (y * side + x) + channel] = colors[4 * i + channel];
      }
    }
  }
}

/** Draws the part that is seen, given in world units. */
export function drawViewport(left, top, right, bottom, ink) {
  if (!backdrop) return;
  const context = canvas.getContext("2d");
  const unit = canvas.width / SIDE;
  context.putImageData(backdrop, 0, 0);
  context.strokeStyle = `rgb(${ink.join(",")})`;
  context.lineWidth = 1.5 * scale;
  const edge = context.lineWidth / 2;
  const x = Math.max(edge, left * unit);
  const y = Math.max(edge, top * unit);
  context.strokeRect(x, y, Math.min(canvas.width - edge, right * unit) - x, Math.min(canvas.height - edge, bottom * unit) - y);
}
