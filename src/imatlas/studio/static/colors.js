// Colors of the images by a column, and the entries of the legend that explains them.
import { column, describeColumn } from "./state.js";
import { short } from "./dom.js";

const N_COLORS = 20;
const N_BINS = 6;
const NONE = "none";

/** A color variable of the style sheet as [red, green, blue]. */
export function themeColor(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((start) => Number.parseInt(hex.slice(start, start + 2), 16));
}

/** The CSS color of category i. */
export const categoryColor = (i) => `var(--c${i % N_COLORS})`;

function ramp(share) {
  const stops = ["--ramp0", "--ramp1", "--ramp2", "--ramp3"].map(themeColor);
  const position = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const start = Math.min(stops.length - 2, Math.floor(position));
  return stops[start].map((value, i) => Math.round(value + (stops[start + 1][i] - value) * (position - start)));
}

function categories(values, description) {
  const counts = new Array(description.values.length).fill(0);
  let none = 0;
  for (const value of values) if (value >= 0) counts[value]++; else none++;
  const entries = description.values.map((name, i) => ({ name, low: i, high: i, count: counts[i], color: themeColor(`--c${i % N_COLORS}`) }));
  if (none) entries.push({ name: NONE, low: -Infinity, high: -0.5, count: none, color: themeColor("--none") });
  const colors = entries.map((entry) => entry.color);
  const last = themeColor("--none");
  return { entries: entries.filter((entry) => entry.count), colorOf: (value) => (value >= 0 ? colors[value] : last) };
}

function numbers(values, description) {
  const low = description.low ?? values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = description.high ?? values.reduce((most, value) => Math.max(most, value), -Infinity);
  const width = (high - low) / N_BINS || 1;
  const shades = Array.from({ length: 64 }, (_, i) => ramp(i / 63));
  const none = themeColor("--none");
  const colorOf = (value) => (Number.isFinite(value) ? shades[Math.max(0, Math.min(63, Math.round(((value - low) / (width * N_BINS)) * 63)))] : none);
  const counts = new Array(N_BINS).fill(0);
  const binOf = (value) => Math.max(0, Math.min(N_BINS - 1, Math.floor((value - low) / width)));
  for (const value of values) if (Number.isFinite(value)) counts[binOf(value)]++;
  const entries = counts.map((n, i) => {
    const from = low + i * width;
    // The last bin is closed, the others end just before the next begins.
    const to = i === N_BINS - 1 ? Infinity : from + width - width * 1e-6;
    return { name: `${short(from)} – ${short(from + width)}`, low: i ? from : -Infinity, high: to, count: n, color: colorOf(from + width / 2) };
  });
  return { entries: entries.filter((entry) => entry.count), colorOf };
}

/** {title, values, entries, colorOf}: how to color the images by a column. */
export async function coloringBy(name) {
  const description = describeColumn(name);
  const values = await column(name);
  const coloring = description.kind === "category" ? categories(values, description) : numbers(values, description);
  return { name, title: description.title ?? name, values, ...coloring };
}

/** [r, g, b, a] bytes of the images in `rows`; those left out, or not selected while others are, recede. */
export function paint(rows, coloring, leftOut, selection) {
  const bytes = new Uint8Array(4 * rows.length);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i];
    const color = coloring.colorOf(coloring.values[row]);
    bytes[4 * i] = color[0];
    bytes[4 * i + 1] = color[1];
    bytes[4 * i + 2] = color[2];
    bytes[4 * i + 3] = selection.size && !selection.has(row) ? 70 : leftOut[row] >= 0 ? 50 : 255;
  }
  return bytes;
}
