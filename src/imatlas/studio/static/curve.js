// Loss curves as SVG: loss by time of training, on a logarithmic scale where it falls by a large factor.
import { short } from "./dom.js";
import { seconds } from "./time.js";

const WIDTH = 520, HEIGHT = 220, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 26;
const WIDE = 8; // from this factor on, the scale is logarithmic

function element(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const known = (values) => values.filter((value) => value !== null);

/** The vertical place of a loss, and the losses that get a line. */
function scale(losses) {
  const low = Math.min(...losses), high = Math.max(...losses);
  const isLog = low > 0 && high / low > WIDE;
  const turned = isLog ? Math.log : (value) => value;
  const span = turned(high) - turned(low) || 1;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (turned(value) - turned(low)) / span);
  const middle = isLog ? Math.sqrt(low * high) : (low + high) / 2;
  return { y, marked: high > low ? [low, middle, high] : [low] };
}

/** A drawing of a network's losses; null before there are two points. */
export function curve(network, label) {
  const times = network.seconds;
  const losses = known([...network.train, ...network.held_out]);
  if (times.length < 2 || !losses.length) return null;
  const { y, marked } = scale(losses);
  const end = times.at(-1) || 1;
  const x = (time) => LEFT + (WIDTH - LEFT - RIGHT) * (time / end);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img", "aria-label": label });
  for (const value of marked) {
    svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }));
    svg.append(element("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  for (const share of [0, 0.5, 1]) {
    const anchor = ["start", "middle", "end"][2 * share];
    svg.append(element("text", { x: x(share * end), y: HEIGHT - 6, "text-anchor": anchor }, seconds(share * end)));
  }
  for (const name of ["train", "held_out"]) {
    const points = network[name].map((value, i) => (value === null ? null : [x(times[i]), y(value)])).filter(Boolean);
    if (!points.length) continue;
    svg.append(element("polyline", { points: points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "), class: name }));
    const [cx, cy] = points.at(-1);
    svg.append(element("circle", { cx, cy, r: 3.5, class: name }));
  }
  return svg;
}
