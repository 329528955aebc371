// The whole layout in small, with the part that the map shows.

const LONGEST = 160; // CSS pixels

let canvas;
let backdrop = null;
let world = [0, 0, 1, 1]; // left, top, right, bottom of the layout
let unit = 1; // pixels of the canvas per unit of the world
let density = 1;

/** Connects the minimap; `goTo(x, y)` moves the map there. */
export function connectMinimap(element, goTo) {
  canvas = element;
  const move = (event) => {
    const frame = canvas.getBoundingClientRect();
    const share = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    goTo(...share.map((value, axis) => world[axis] + value * (world[axis + 2] - world[axis])));
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
}

/** Draws the points once; the viewport is drawn over them as often as it moves. */
export function drawPoints(positions, colors, bounds) {
  world = bounds;
  density = Math.min(2, window.devicePixelRatio || 1);
  const longest = Math.max(world[2] - world[0], world[3] - world[1]);
  const sides = [(world[2] - world[0]) / longest, (world[3] - world[1]) / longest].map((share) => Math.max(24, share * LONGEST));
  [canvas.style.width, canvas.style.height] = sides.map((side) => `${side}px`);
  [canvas.width, canvas.height] = sides.map((side) => Math.round(side * density));
  unit = (LONGEST * density) / longest;
  const n = positions.length / 2;
  const dot = Math.max(1, Math.min(5 * density, Math.round(Math.sqrt((canvas.width * canvas.height) / n))));
  const { width, height } = canvas;
  backdrop = new ImageData(width, height);
  const pixels = new Uint32Array(backdrop.data.buffer);
  const words = new Uint32Array(colors.buffer);
  for (let i = 0; i < n; i++) {
    const left = Math.round((positions[2 * i] - world[0]) * unit - dot / 2);
    const top = Math.round((positions[2 * i + 1] - world[1]) * unit - dot / 2);
    for (let y = Math.max(0, top); y < Math.min(height, top + dot); y++) {
      for (let x = Math.max(0, left); x < Math.min(width, left + dot); x++) pixels[y * width + x] = words[i];
    }
  }
}

/** Draws the part that is seen, given in units of the world. */
export function drawViewport(left, top, right, bottom, ink) {
  if (!backdrop) return;
  const context = canvas.getContext("2d");
  context.putImageData(backdrop, 0, 0);
  context.strokeStyle = `rgb(${ink.join(",")})`;
  context.lineWidth = 1.5 * density;
  const edge = context.lineWidth / 2;
  const within = (value, axis) => Math.max(edge, Math.min((axis ? canvas.height : canvas.width) - edge, (value - world[axis]) * unit));
  const [x1, y1, x2, y2] = [within(left, 0), within(top, 1), within(right, 0), within(bottom, 1)];
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
}
