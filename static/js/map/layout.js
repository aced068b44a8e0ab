/**
 * The layered layout of a Map: pure, deterministic, no DOM.
 *
 * What is needed first stands first: rank k starts in wave k. Ranks run to the right or downwards, whichever shows
 * the Map larger in the place it gets. The phases have a module each in layout/.
 */

import { placeAlongRanks } from "./layout/coordinates.js";
import { addVirtualVertices, orderRanks } from "./layout/order.js";
import { connectedParts, packRows } from "./layout/packing.js";
import { longestPathRanks, splitTallRanks } from "./layout/ranks.js";
import { groupRegions } from "./layout/regions.js";

export const CARD_WIDTH = 208;
export const CARD_HEIGHT = 76;

const PADDING = { x: 14, top: 30, bottom: 12 };
const PART_GAP = 72;
const LONGEST_ROUTED = 40;
const SPACING = {
  right: { card: CARD_HEIGHT, line: 12, lineBefore: 30, lineAfter: 16, gap: 16, groupGap: 56 },
  down: { card: CARD_WIDTH, line: 14, lineBefore: 16, lineAfter: 16, gap: 22, groupGap: 46 },
};
/** Spare room across the ranks is given to the gaps, up to this much. */
const MOST_AIR = 2.2;

/**
 * @typedef {"right"|"down"} Direction
 * @typedef {{id: string, group: string|null}} LayoutNode
 * @typedef {{from: string, to: string}} LayoutDependency  `to` is the one needed
 * @typedef {{edge: number, from: number, to: number, points: Float64Array}} Route
 *   drawn from the needed component to the dependant; points are x, y pairs: a curve across the gap between two
 *   ranks, then a straight piece through the next rank, and so on
 * @typedef {{group: string, left: number, top: number, right: number, bottom: number, titleLeft: number}} Region
 */

/**
 * @typedef {object} Layout
 * @property {Direction} direction
 * @property {number} width
 * @property {number} height
 * @property {string[]} ids
 * @property {Map<string, number>} indexOf
 * @property {Float64Array} x  centres of the cards
 * @property {Float64Array} y
 * @property {Int32Array} rank
 * @property {Route[]} routes
 * @property {Region[]} regions
 */

/**
 * @param {LayoutNode[]} nodes
 * @param {LayoutDependency[]} dependencies
 * @param {{width: number, height: number}} place  of which only the proportions count
 * @returns {Layout}
 */
export function layoutGraph(nodes, dependencies, place) {
  const aspect = Math.max(0.3, Math.min(4, place.width / Math.max(1, place.height)));
  const indexOf = new Map(nodes.map((node, i) => [node.id, i]));
  const groupNames = [...new Set(nodes.map((node) => node.group))].filter((name) => name !== null);
  const group = Int32Array.from(nodes, (node) => (node.group === null ? -1 : groupNames.indexOf(node.group)));
  const edges = usableEdges(dependencies, indexOf);
  const parts = orderParts(nodes.length, edges, group);
  const drawings = /** @type {Direction[]} */ (["right", "down"]).map((direction) =>
    draw(parts, nodes.length, edges, direction, aspect),
  );
  const best = drawings.reduce((a, b) => (shownScale(b, aspect) > shownScale(a, aspect) * 1.05 ? b : a));
  const regions = regionsOf(best, group, groupNames);
  return finish(best, nodes, indexOf, regions);
}

/**
 * @param {LayoutDependency[]} dependencies
 * @param {Map<string, number>} indexOf
 */
function usableEdges(dependencies, indexOf) {
  const [tail, head, edge] = [/** @type {number[]} */ ([]), /** @type {number[]} */ ([]), /** @type {number[]} */ ([])];
  dependencies.forEach((dependency, e) => {
    const [needed, dependant] = [indexOf.get(dependency.to), indexOf.get(dependency.from)];
    if (needed === undefined || dependant === undefined || needed === dependant) return;
    tail.push(needed);
    head.push(dependant);
    edge.push(e);
  });
  return { tail: Int32Array.from(tail), head: Int32Array.from(head), edge };
}

/**
 * @typedef {{members: number[], ranked: import("./layout/order.js").Ranked|null, edges: number[]}} Part
 *   members by index; ranked counts them 0…; without ranked: components that stand alone, for a grid
 */

/**
 * Splits the Map into parts and orders each: all that does not depend on the direction.
 * @param {number} n
 * @param {{tail: Int32Array, head: Int32Array}} edges
 * @param {Int32Array} group
 * @returns {Part[]}
 */
function orderParts(n, { tail, head }, group) {
  const lists = connectedParts(n, tail, head);
  const partOf = new Int32Array(n);
  const local = new Int32Array(n);
  lists.forEach((members, p) => members.forEach((v, i) => ((partOf[v] = p), (local[v] = i))));
  const edgesOf = lists.map(() => /** @type {number[]} */ ([]));
  tail.forEach((v, e) => edgesOf[partOf[v]].push(e));
  /** @type {Part[]} */
  const parts = lists
    .filter((members) => members.length > 1)
    .map((members) => {
      const own = edgesOf[partOf[members[0]]];
      const graph = {
        n: members.length,
        tail: Int32Array.from(own, (e) => local[tail[e]]),
        head: Int32Array.from(own, (e) => local[head[e]]),
      };
      const groups = Int32Array.from(members, (v) => group[v]);
      const rank = longestPathRanks(graph);
      splitTallRanks(graph, rank, groups, Math.max(9, Math.round(1.5 * Math.sqrt(members.length))));
      const ranked = addVirtualVertices(graph, rank, groups, LONGEST_ROUTED);
      orderRanks(ranked);
      return { members, ranked, edges: own };
    });
  /** @type {Map<number, number[]>} */
  const alone = new Map();
  for (const [v, ...others] of lists) {
    if (others.length > 0) continue;
    const members = alone.get(group[v]);
    if (members) members.push(v);
    else alone.set(group[v], [v]);
  }
  for (const members of alone.values()) parts.push({ members, ranked: null, edges: [] });
  return parts;
}

/**
 * @typedef {object} Drawing
 * @property {Direction} direction
 * @property {number} width
 * @property {number} height
 * @property {Float64Array} x
 * @property {Float64Array} y
 * @property {Int32Array} rank  unique across parts
 * @property {Route[]} routes
 */

/**
 * @param {Part[]} parts
 * @param {number} n
 * @param {{tail: Int32Array, head: Int32Array, edge: number[]}} edges
 * @param {Direction} direction
 * @param {number} aspect
 * @returns {Drawing}
 */
function draw(parts, n, edges, direction, aspect) {
  const [x, y, rank] = [new Float64Array(n), new Float64Array(n), new Int32Array(n)];
  /** @type {Route[]} */
  const routes = [];
  const boxes = parts.map((part) =>
    part.ranked ? drawRanked(part, part.ranked, direction, aspect) : drawGrid(part, direction, aspect),
  );
  const packed = packRows(boxes, aspect, PART_GAP);
  let rankOffset = 0;
  parts.forEach((part, p) => {
    const [box, at] = [boxes[p], packed.places[p]];
    part.members.forEach((v, i) => {
      x[v] = box.x[i] + at.x;
      y[v] = box.y[i] + at.y;
      rank[v] = box.rank[i] + rankOffset;
    });
    rankOffset += Math.max(...box.rank) + 2;
    part.edges.forEach((e, i) => {
      const points = box.points[i].map((value, k) => value + (k % 2 ? at.y : at.x));
      routes.push({ edge: edges.edge[e], from: edges.tail[e], to: edges.head[e], points });
    });
  });
  return { direction, width: packed.width, height: packed.height, x, y, rank, routes };
}

/**
 * @typedef {{width: number, height: number, x: ArrayLike<number>, y: ArrayLike<number>, rank: Int32Array, points: Float64Array[]}} Box
 */

/**
 * @param {Part} part
 * @param {import("./layout/order.js").Ranked} ranked
 * @param {Direction} direction
 * @param {number} aspect
 * @returns {Box}
 */
function drawRanked(part, ranked, direction, aspect) {
  const isRight = direction === "right";
  const spacing = SPACING[direction];
  const depth = isRight ? CARD_WIDTH : CARD_HEIGHT;
  const start = rankStarts(ranked, depth, isRight ? 66 : 80);
  const length = start[start.length - 1] + depth;
  let along = placeAlongRanks(ranked, spacing);
  const spare = (isRight ? length / aspect : length * aspect) / (extentOf(along) + spacing.card);
  if (spare > 1.1 && ranked.size < 1500) {
    const air = Math.min(MOST_AIR, spare);
    along = placeAlongRanks(ranked, {
      ...spacing,
      gap: spacing.gap * air,
      groupGap: spacing.groupGap * Math.sqrt(air),
    });
  }
  const first = lowestOf(along) - spacing.card / 2;
  const n = part.members.length;
  const rank = ranked.rank.slice(0, n);
  const across = Float64Array.from(rank, (r) => start[r] + depth / 2);
  const level = Float64Array.from(along.subarray(0, n), (a) => a - first);
  const points = ranked.chains.map((chain) =>
    routePoints(chain, ranked, start, depth, (v) => along[v] - first, isRight),
  );
  const breadth = extentOf(along) + spacing.card;
  return isRight
    ? { width: length, height: breadth, x: across, y: level, rank, points }
    : { width: breadth, height: length, x: level, y: across, rank, points };
}

/** @param {Float64Array} values  at least one */
function lowestOf(values) {
  return values.reduce((a, b) => Math.min(a, b));
}

/** @param {Float64Array} values  at least one */
function extentOf(values) {
  return values.reduce((a, b) => Math.max(a, b)) - lowestOf(values);
}

/**
 * Where each rank begins; gaps that many lines cross are wider.
 * @param {import("./layout/order.js").Ranked} ranked
 * @param {number} depth
 * @param {number} gap
 */
function rankStarts(ranked, depth, gap) {
  const start = new Float64Array(ranked.ranks.length);
  for (let r = 1; r < start.length; r++) {
    const lines = ranked.ranks[r].reduce((sum, v) => sum + ranked.before.start[v + 1] - ranked.before.start[v], 0);
    start[r] = start[r - 1] + depth + gap + Math.min(60, Math.max(0, lines - 6) * 2);
  }
  return start;
}

/**
 * @param {number[]} chain
 * @param {import("./layout/order.js").Ranked} ranked
 * @param {Float64Array} start
 * @param {number} depth
 * @param {(v: number) => number} level
 * @param {boolean} isRight
 */
function routePoints(chain, ranked, start, depth, level, isRight) {
  const isForward = ranked.rank[chain[0]] < ranked.rank[/** @type {number} */ (chain.at(-1))];
  const points = new Float64Array(4 * (chain.length - 1));
  chain.forEach((v, i) => {
    const enters = start[ranked.rank[v]] + (isForward ? 0 : depth);
    const leaves = start[ranked.rank[v]] + (isForward ? depth : 0);
    const at = level(v);
    if (i > 0) points.set(isRight ? [enters, at] : [at, enters], 4 * i - 2);
    if (i < chain.length - 1) points.set(isRight ? [leaves, at] : [at, leaves], 4 * i);
  });
  return points;
}

/**
 * Components without any dependency, as a grid.
 * @param {Part} part
 * @param {Direction} direction
 * @param {number} aspect
 * @returns {Box}
 */
function drawGrid(part, direction, aspect) {
  const n = part.members.length;
  const [stepX, stepY] = [CARD_WIDTH + SPACING.down.gap, CARD_HEIGHT + SPACING.right.gap];
  const columns = Math.min(n, Math.max(1, Math.round(Math.sqrt((n * aspect * stepY) / stepX))));
  const rows = Math.ceil(n / columns);
  const column = Int32Array.from({ length: n }, (_, i) => (direction === "right" ? Math.floor(i / rows) : i % columns));
  const row = Int32Array.from({ length: n }, (_, i) => (direction === "right" ? i % rows : Math.floor(i / columns)));
  return {
    width: columns * stepX - SPACING.down.gap,
    height: rows * stepY - SPACING.right.gap,
    x: Float64Array.from(column, (c) => c * stepX + CARD_WIDTH / 2),
    y: Float64Array.from(row, (r) => r * stepY + CARD_HEIGHT / 2),
    rank: direction === "right" ? column : row,
    points: [],
  };
}

/**
 * How large the drawing would be shown.
 * @param {{width: number, height: number}} drawing
 * @param {number} aspect
 */
function shownScale({ width, height }, aspect) {
  return Math.min(aspect / Math.max(1, width), 1 / Math.max(1, height));
}

/**
 * @param {Drawing} drawing
 * @param {Int32Array} group
 * @param {(string|null)[]} groupNames
 * @returns {Region[]}
 */
function regionsOf({ x, y, rank, direction }, group, groupNames) {
  const cards = Array.from(x, (cx, v) => ({
    left: cx - CARD_WIDTH / 2,
    right: cx + CARD_WIDTH / 2,
    top: y[v] - CARD_HEIGHT / 2,
    bottom: y[v] + CARD_HEIGHT / 2,
  }));
  const isRight = direction === "right";
  const padding = { ...PADDING, run: SPACING[direction].gap * MOST_AIR + 1 };
  return groupRegions(cards, group, rank, padding, isRight).map(({ group: g, ...rect }) => ({
    ...rect,
    group: /** @type {string} */ (groupNames[g]),
  }));
}

/**
 * Moves everything so that the drawing begins at 0, 0, regions included.
 * @param {Drawing} drawing
 * @param {LayoutNode[]} nodes
 * @param {Map<string, number>} indexOf
 * @param {Region[]} regions
 * @returns {Layout}
 */
function finish(drawing, nodes, indexOf, regions) {
  const left = regions.reduce((least, region) => Math.min(least, region.left), 0);
  const top = regions.reduce((least, region) => Math.min(least, region.top), 0);
  const right = regions.reduce((most, region) => Math.max(most, region.right), drawing.width);
  const bottom = regions.reduce((most, region) => Math.max(most, region.bottom), drawing.height);
  return {
    direction: drawing.direction,
    width: right - left,
    height: bottom - top,
    ids: nodes.map((node) => node.id),
    indexOf,
    x: drawing.x.map((value) => value - left),
    y: drawing.y.map((value) => value - top),
    rank: drawing.rank,
    routes: drawing.routes.map((route) => ({
      ...route,
      points: route.points.map((value, k) => value - (k % 2 ? top : left)),
    })),
    regions: regions.map((region) => ({
      group: region.group,
      left: region.left - left,
      top: region.top - top,
      right: region.right - left,
      bottom: region.bottom - top,
      titleLeft: region.titleLeft - left,
    })),
  };
}
