/**
 * Walking the dependencies of a Map: what a component needs, what needs it, and which neighbour an arrow key means.
 */

import { CARD_HEIGHT } from "./layout.js";

/** @typedef {import("./layout.js").Layout} Layout */

/**
 * @typedef {object} Paths
 * @property {number[][]} needs  per component, by index, those it needs
 * @property {number[][]} neededBy
 */

/**
 * @param {Layout} layout
 * @returns {Paths}
 */
export function pathsOf(layout) {
  const needs = layout.ids.map(() => /** @type {number[]} */ ([]));
  const neededBy = layout.ids.map(() => /** @type {number[]} */ ([]));
  for (const { from, to } of layout.routes) {
    needs[to].push(from);
    neededBy[from].push(to);
  }
  return { needs, neededBy };
}

/**
 * Everything reachable, without the start itself.
 * @param {number[][]} neighbours
 * @param {number} start
 * @returns {Set<number>}
 */
export function reach(neighbours, start) {
  const seen = new Set([start]);
  for (const v of seen) for (const w of neighbours[v]) seen.add(w);
  seen.delete(start);
  return seen;
}

/**
 * The component an arrow key leads to: along the ranks it follows dependencies (if there are any on that side),
 * across them it goes to the nearest card of the same rank, else to the nearest card that way.
 * @param {Layout} layout
 * @param {Paths} paths
 * @param {number} current
 * @param {"ArrowLeft"|"ArrowRight"|"ArrowUp"|"ArrowDown"} key
 * @returns {number}  current if there is nothing that way
 */
export function neighbourByKey(layout, paths, current, key) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  const forward = layout.direction === "right" ? dx : dy;
  if (forward !== 0) {
    const linked = forward > 0 ? paths.neededBy[current] : paths.needs[current];
    if (linked.length > 0) return nearest(layout, current, linked);
  } else {
    const sameRank = thatWay(layout, current, dx, dy, (v) => layout.rank[v] === layout.rank[current]);
    if (sameRank.length > 0) return nearest(layout, current, sameRank);
  }
  const others = thatWay(layout, current, dx, dy, () => true);
  return others.length > 0 ? nearest(layout, current, others, dx !== 0 ? [1, 3] : [3, 1]) : current;
}

/**
 * @param {Layout} layout
 * @param {number} current
 * @param {number} dx
 * @param {number} dy
 * @param {(v: number) => boolean} isWanted
 */
function thatWay({ x, y, ids }, current, dx, dy, isWanted) {
  const found = [];
  for (let v = 0; v < ids.length; v++) {
    if (v !== current && isWanted(v) && (x[v] - x[current]) * dx + (y[v] - y[current]) * dy > CARD_HEIGHT / 2)
      found.push(v);
  }
  return found;
}

/**
 * @param {Layout} layout
 * @param {number} current
 * @param {number[]} candidates
 * @param {number[]} [weights]  how much distance along x and y counts
 */
function nearest({ x, y }, current, candidates, [wx, wy] = [1, 1]) {
  /** @param {number} v */
  const distance = (v) => Math.hypot(wx * (x[v] - x[current]), wy * (y[v] - y[current]));
  return candidates.reduce((best, v) => (distance(v) < distance(best) ? v : best));
}
