/**
 * Second phase of the layout: the order inside each rank, so that few lines cross.
 *
 * Lines longer than one rank are cut into pieces by virtual vertices. Barycentre sweeps pull every vertex towards the
 * middle of its neighbours, forwards and backwards, and the best order seen is kept. A grouped run keeps the members
 * of a group side by side, which is what lets a group be drawn as one region.
 */

import { outgoing } from "./ranks.js";

/**
 * @typedef {object} Ranked  real vertices 0…n-1 and virtual ones after them
 * @property {number} n  how many are real
 * @property {number} size  how many there are
 * @property {Int32Array} rank
 * @property {Int32Array} group  -1 for virtual vertices
 * @property {Int32Array[]} ranks  the vertices of each rank, in order
 * @property {Int32Array} position  index of each vertex inside its rank
 * @property {{start: Int32Array, items: Int32Array}} before  neighbours one rank earlier
 * @property {{start: Int32Array, items: Int32Array}} after  neighbours one rank later
 * @property {number[][]} chains  per edge: tail, virtual vertices, head
 */

/**
 * Cuts long edges into unit pieces.
 * @param {import("./ranks.js").Graph} graph
 * @param {Int32Array} rankOfReal
 * @param {Int32Array} groupOfReal
 * @param {number} longest  an edge that spans more ranks than this is not routed but drawn straight
 * @returns {Ranked}
 */
export function addVirtualVertices({ n, tail, head }, rankOfReal, groupOfReal, longest) {
  const rank = Array.from(rankOfReal);
  /** @type {number[]} */
  const from = [];
  /** @type {number[]} */
  const to = [];
  const chains = [];
  for (let e = 0; e < tail.length; e++) {
    const isForward = rank[tail[e]] < rank[head[e]];
    const [a, b] = isForward ? [tail[e], head[e]] : [head[e], tail[e]];
    const chain = [a];
    if (rank[b] - rank[a] <= longest) {
      for (let r = rank[a] + 1; r < rank[b]; r++) {
        chain.push(rank.length);
        rank.push(r);
      }
    }
    chain.push(b);
    if (rank[b] - rank[a] <= longest) {
      for (let i = 1; i < chain.length; i++) {
        from.push(chain[i - 1]);
        to.push(chain[i]);
      }
    }
    chains.push(isForward ? chain : chain.reverse());
  }
  const size = rank.length;
  const group = new Int32Array(size).fill(-1);
  group.set(groupOfReal);
  const byRank = /** @type {number[][]} */ ([]);
  for (let v = 0; v < size; v++) (byRank[rank[v]] ??= []).push(v);
  const ranks = Array.from(byRank, (list) => Int32Array.from(list ?? []));
  const ranked = {
    n,
    size,
    rank: Int32Array.from(rank),
    group,
    ranks,
    position: new Int32Array(size),
    before: outgoing(size, to, from),
    after: outgoing(size, from, to),
    chains,
  };
  number(ranked);
  return ranked;
}

/** @param {Ranked} ranked */
function number(ranked) {
  for (const list of ranked.ranks) list.forEach((v, i) => (ranked.position[v] = i));
}

/**
 * Orders every rank in place: grouped if that costs few crossings, free otherwise.
 * @param {Ranked} ranked
 */
export function orderRanks(ranked) {
  const initial = ranked.ranks.map((list) => list.slice());
  const free = sweep(ranked, false);
  ranked.ranks = initial;
  number(ranked);
  const grouped = sweep(ranked, true);
  ranked.ranks = grouped.crossings <= free.crossings * 1.5 + 6 ? grouped.ranks : free.ranks;
  number(ranked);
}

/**
 * @param {Ranked} ranked
 * @param {boolean} isGrouped
 */
function sweep(ranked, isGrouped) {
  const rounds = ranked.size < 600 ? 24 : 8;
  let best = { crossings: Infinity, ranks: ranked.ranks };
  for (let round = 0; round < rounds && best.crossings > 0; round++) {
    const isForward = round % 2 === 0;
    const last = ranked.ranks.length - 1;
    for (let i = 0; i <= last; i++) {
      const list = ranked.ranks[isForward ? i : last - i];
      sortRank(ranked, list, isForward ? ranked.before : ranked.after, isGrouped);
    }
    if (ranked.size < 1500) swapNeighbours(ranked, isGrouped);
    const crossings = countCrossings(ranked);
    if (crossings < best.crossings) best = { crossings, ranks: ranked.ranks.map((list) => list.slice()) };
  }
  return best;
}

/**
 * @param {Ranked} ranked
 * @param {Int32Array} list
 * @param {{start: Int32Array, items: Int32Array}} neighbours
 * @param {boolean} isGrouped
 */
function sortRank({ position, group, n }, list, neighbours, isGrouped) {
  /** @type {Map<number, number>} */
  const key = new Map();
  const groupSum = new Map();
  for (const v of list) {
    const [from, until] = [neighbours.start[v], neighbours.start[v + 1]];
    let sum = 0;
    for (let i = from; i < until; i++) sum += position[neighbours.items[i]];
    // A vertex without neighbours on that side stays where it is.
    const own = until > from ? sum / (until - from) : position[v];
    key.set(v, own);
    if (isGrouped && v < n) {
      const [total, count] = groupSum.get(group[v]) ?? [0, 0];
      groupSum.set(group[v], [total + own, count + 1]);
    }
  }
  /** @param {number} v */
  const outer = (v) => {
    const sum = v < n ? groupSum.get(group[v]) : undefined;
    return sum ? sum[0] / sum[1] : /** @type {number} */ (key.get(v));
  };
  const sorted = Array.from(list, (v) => ({ v, outer: outer(v), inner: /** @type {number} */ (key.get(v)) })).sort(
    (a, b) => a.outer - b.outer || group[a.v] - group[b.v] || a.inner - b.inner || position[a.v] - position[b.v],
  );
  sorted.forEach(({ v }, i) => {
    list[i] = v;
    position[v] = i;
  });
}

/**
 * Swaps neighbours while that removes crossings. In a grouped run only inside a group, so that it stays together.
 * @param {Ranked} ranked
 * @param {boolean} isGrouped
 */
function swapNeighbours(ranked, isGrouped) {
  const { ranks, position, group } = ranked;
  for (let pass = 0, hasGained = true; hasGained && pass < 6; pass++) {
    hasGained = false;
    for (const list of ranks) {
      for (let i = 1; i < list.length; i++) {
        const [a, b] = [list[i - 1], list[i]];
        if (isGrouped && group[a] !== group[b]) continue;
        if (pairCrossings(ranked, a, b) <= pairCrossings(ranked, b, a)) continue;
        list[i - 1] = b;
        list[i] = a;
        position[b] = i - 1;
        position[a] = i;
        hasGained = true;
      }
    }
  }
}

/**
 * Crossings between the lines of a and those of b when a stands before b.
 * @param {Ranked} ranked
 * @param {number} a
 * @param {number} b
 */
function pairCrossings({ before, after, position }, a, b) {
  let crossings = 0;
  for (const side of [before, after]) {
    for (let i = side.start[a]; i < side.start[a + 1]; i++) {
      for (let j = side.start[b]; j < side.start[b + 1]; j++) {
        if (position[side.items[i]] > position[side.items[j]]) crossings++;
      }
    }
  }
  return crossings;
}

/**
 * All crossings, by counting inversions with a Fenwick tree.
 * @param {Ranked} ranked
 */
export function countCrossings({ ranks, position, after }) {
  let crossings = 0;
  for (let r = 0; r + 1 < ranks.length; r++) {
    const width = ranks[r + 1].length;
    const tree = new Int32Array(width + 1);
    let seen = 0;
    for (const v of ranks[r]) {
      const ends = Array.from(after.items.subarray(after.start[v], after.start[v + 1]), (w) => position[w]);
      for (const end of ends) {
        let notAfter = 0;
        for (let i = end + 1; i > 0; i -= i & -i) notAfter += tree[i];
        crossings += seen - notAfter;
      }
      for (const end of ends) {
        seen++;
        for (let i = end + 1; i <= width; i += i & -i) tree[i]++;
      }
    }
  }
  return crossings;
}
