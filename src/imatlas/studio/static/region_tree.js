// The hierarchy of the parts of a picture: cut at a level, and drawn.

/** {roots, count}: the segment of each node of a tree, when all that separates with at most this probability is joined. */
export function cut({ n, levels, parents }, level) {
  let merged = 0;
  if (level > 0) while (n + merged < levels.length && levels[n + merged] <= level) merged++;
  const last = n + merged - 1;
  const roots = new Int32Array(levels.length);
  for (let i = levels.length - 1; i >= 0; i--) roots[i] = parents[i] !== i && parents[i] <= last ? roots[parents[i]] : i;
  return { roots, count: n - merged };
}

/** Sums (n, 4) of red, green, blue and pixels over the finest regions; rgba are the bytes of the picture. */
export function colorSums({ n, regions }, rgba) {
  const sums = new Float64Array(4 * n);
  for (let pixel = 0; pixel < regions.length; pixel++) {
    const at = 4 * regions[pixel];
    for (let channel = 0; channel < 3; channel++) sums[at + channel] += rgba[4 * pixel + channel];
    sums[at + 3]++;
  }
  return sums;
}

/** The mean color of each segment, packed as canvases have it, at the place of its node. */
export function meanColors({ n, levels }, sums, roots) {
  const together = new Float64Array(4 * levels.length);
  for (let region = 0; region < n; region++) for (let i = 0; i < 4; i++) together[4 * roots[region] + i] += sums[4 * region + i];
  const colors = new Uint32Array(levels.length);
  for (let node = 0; node < levels.length; node++) {
    const [red, green, blue] = [0, 1, 2].map((i) => Math.round(together[4 * node + i] / together[4 * node + 3]));
    if (together[4 * node + 3]) colors[node] = packed(red, green, blue);
  }
  return colors;
}

/** A color as canvases have it. */
export const packed = (red, green, blue, alpha = 255) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

/** Fills `out` with the color of the segment of each pixel (none without colors), and its outlines, so many pixels wide. */
export function paintSegments({ width, height, regions }, roots, colors, outline, thickness, out) {
  for (let y = 0, pixel = 0; y < height; y++) {
    for (let x = 0; x < width; x++, pixel++) {
      const root = roots[regions[pixel]];
      const differs = (x + thickness < width && roots[regions[pixel + thickness]] !== root)
        || (y + thickness < height && roots[regions[pixel + thickness * width]] !== root);
      out[pixel] = differs ? outline : colors ? colors[root] : 0;
    }
  }
}
