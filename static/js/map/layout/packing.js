/**
 * Last phase of the layout: parts of a Map that have nothing to do with each other are laid out apart, then packed
 * into one drawing of roughly the proportions of the place it is shown in.
 */

/**
 * Which part each component belongs to.
 * @param {number} n
 * @param {Int32Array} tail
 * @param {Int32Array} head
 * @returns {number[][]}  the members of each part, largest part first
 */
export function connectedParts(n, tail, head) {
  const parent = Int32Array.from({ length: n }, (_, v) => v);
  /** @param {number} v */
  const root = (v) => {
    while (parent[v] !== v) v = parent[v] = parent[parent[v]];
    return v;
  };
  for (let e = 0; e < tail.length; e++) parent[root(tail[e])] = root(head[e]);
  /** @type {Map<number, number[]>} */
  const parts = new Map();
  for (let v = 0; v < n; v++) {
    const r = root(v);
    const part = parts.get(r);
    if (part) part.push(v);
    else parts.set(r, [v]);
  }
  return [...parts.values()].sort((a, b) => b.length - a.length || a[0] - b[0]);
}

/**
 * Rows of boxes, each row about as wide as the target proportions want it.
 * @param {{width: number, height: number}[]} boxes  the most important first
 * @param {number} aspect  wanted width / height
 * @param {number} gap
 * @returns {{places: {x: number, y: number}[], width: number, height: number}}
 */
export function packRows(boxes, aspect, gap) {
  const total = boxes.reduce((sum, box) => sum + (box.width + gap) * (box.height + gap), 0);
  const limit = Math.max(Math.sqrt(total * aspect), ...boxes.map((box) => box.width));
  const places = [];
  let [x, y, rowHeight, width] = [0, 0, 0, 0];
  for (const box of boxes) {
    if (x > 0 && x + box.width > limit) {
      x = 0;
      y += rowHeight + gap;
      rowHeight = 0;
    }
    places.push({ x, y });
    x += box.width + gap;
    width = Math.max(width, x - gap);
    rowHeight = Math.max(rowHeight, box.height);
  }
  return { places, width, height: y + rowHeight };
}
