// Which points are where: a uniform grid over the positions of a layout, far faster than reading pixels back from the GPU.

/** A uniform grid over n points given as x, y pairs; about two points to a cell. */
export class Grid {
  constructor(positions, side) {
    const n = positions.length / 2;
    this.positions = positions;
    this.cells = Math.max(1, Math.min(1024, Math.round(Math.sqrt(n / 2))));
    this.scale = this.cells / side;
    const cellOf = (i) => this.#at(positions[2 * i + 1]) * this.cells + this.#at(positions[2 * i]);
    this.starts = new Uint32Array(this.cells * this.cells + 1);
    for (let i = 0; i < n; i++) this.starts[cellOf(i) + 1]++;
    for (let cell = 0; cell < this.cells * this.cells; cell++) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice();
    this.items = new Uint32Array(n);
    for (let i = 0; i < n; i++) this.items[next[cellOf(i)]++] = i;
  }

  #at(coordinate) {
    return Math.max(0, Math.min(this.cells - 1, Math.floor(coordinate * this.scale)));
  }

  /** The points in a box, in which `keep(x, y)` holds if it is given. */
  inBox(left, top, right, bottom, keep = null) {
    const found = [];
    for (let row = this.#at(top); row <= this.#at(bottom); row++) {
      for (let column = this.#at(left); column <= this.#at(right); column++) {
        const cell = row * this.cells + column;
        for (let k = this.starts[cell]; k < this.starts[cell + 1]; k++) {
          const i = this.items[k];
          const x = this.positions[2 * i];
          const y = this.positions[2 * i + 1];
          if (x >= left && x <= right && y >= top && y <= bottom && (!keep || keep(x, y))) found.push(i);
        }
      }
    }
    return found;
  }

  /** The point nearest to x, y within a distance, or -1. */
  nearest(x, y, distance) {
    let best = -1;
    let least = distance * distance;
    for (const i of this.inBox(x - distance, y - distance, x + distance, y + distance)) {
      const squared = (this.positions[2 * i] - x) ** 2 + (this.positions[2 * i + 1] - y) ** 2;
      if (squared <= least) [best, least] = [i, squared];
    }
    return best;
  }

  /** The points inside a polygon, a list of [x, y]. */
  inPolygon(polygon) {
    const xs = polygon.map((point) => point[0]);
    const ys = polygon.map((point) => point[1]);
    return this.inBox(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (x, y) => isInside(polygon, x, y));
  }
}

/** The same layout in random order, so that the first points of it are a fair sample of all. */
export function shuffled({ rows, positions }) {
  const pairs = new Float64Array(positions.buffer.slice(positions.byteOffset, positions.byteOffset + positions.byteLength));
  for (let i = rows.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [rows[i], rows[j]] = [rows[j], rows[i]];
    // A pair of float32 moves as the 64 bits of one number.
    [pairs[i], pairs[j]] = [pairs[j], pairs[i]];
  }
  return { rows, positions: new Float32Array(pairs.buffer) };
}

/** Whether a point is inside a polygon, by counting the edges that a ray to the right crosses. */
export function isInside(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [x1, y1] = polygon[i];
    const [x2, y2] = polygon[j];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}
