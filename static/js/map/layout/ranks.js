/**
 * First phase of the layout: which rank (column or row) each component stands in.
 *
 * The rank is the longest path from something that needs nothing, so rank k starts in wave k. A rank that would grow
 * far taller than the drawing is wide is split into several neighbouring ranks; nothing inside one rank depends on
 * anything else in it, so any split keeps every dependency pointing forward.
 */

/**
 * @typedef {object} Graph  components by index; edge e runs from what is needed to what needs it
 * @property {number} n
 * @property {Int32Array} tail  index of the needed component
 * @property {Int32Array} head  index of the dependant
 */

/**
 * Longest-path ranks. A cycle (which the server refuses, but a page must survive) is cut where it is met.
 * @param {Graph} graph
 * @returns {Int32Array}
 */
export function longestPathRanks({ n, tail, head }) {
  const unmet = new Int32Array(n);
  const out = outgoing(n, tail, head);
  for (const h of head) unmet[h]++;
  const rank = new Int32Array(n);
  const isDone = new Uint8Array(n);
  /** @type {number[]} */
  const queue = [];
  for (let v = 0; v < n; v++) if (unmet[v] === 0) queue.push(v);
  let done = 0;
  for (let next = 0; done < n; next++) {
    if (next === queue.length) queue.push(leastUnmet(unmet, isDone));
    const v = queue[next];
    if (isDone[v]) continue;
    isDone[v] = 1;
    done++;
    for (let i = out.start[v]; i < out.start[v + 1]; i++) {
      const w = out.items[i];
      if (isDone[w]) continue;
      if (rank[w] < rank[v] + 1) rank[w] = rank[v] + 1;
      if (--unmet[w] === 0) queue.push(w);
    }
  }
  return rank;
}

/**
 * @param {Int32Array} unmet
 * @param {Uint8Array} isDone
 */
function leastUnmet(unmet, isDone) {
  let best = -1;
  for (let v = 0; v < unmet.length; v++) {
    if (!isDone[v] && (best < 0 || unmet[v] < unmet[best])) best = v;
  }
  return best;
}

/**
 * Neighbour lists in two flat arrays: those of v are items[start[v]] … items[start[v + 1] - 1].
 * @param {number} n
 * @param {ArrayLike<number>} from
 * @param {ArrayLike<number>} to
 */
export function outgoing(n, from, to) {
  const start = new Int32Array(n + 1);
  for (let e = 0; e < from.length; e++) start[from[e] + 1]++;
  for (let v = 0; v < n; v++) start[v + 1] += start[v];
  const fill = start.slice();
  const items = new Int32Array(from.length);
  for (let e = 0; e < from.length; e++) items[fill[from[e]]++] = to[e];
  return { start, items };
}

/**
 * Splits ranks that hold more than `limit` components; members of a group stay together where they can.
 * @param {Graph} graph
 * @param {Int32Array} rank  changed in place
 * @param {Int32Array} group
 * @param {number} limit
 */
export function splitTallRanks({ n, tail, head }, rank, group, limit) {
  const firstUse = new Int32Array(n).fill(1 << 30);
  for (let e = 0; e < tail.length; e++) firstUse[tail[e]] = Math.min(firstUse[tail[e]], rank[head[e]]);
  /** @type {number[][]} */
  const members = [];
  for (let v = 0; v < n; v++) (members[rank[v]] ??= []).push(v);
  let shift = 0;
  members.forEach((list, r) => {
    const parts = Math.ceil(list.length / limit);
    // What is needed soonest stands last, next to those who need it: shorter lines.
    if (parts > 1) list.sort((a, b) => firstUse[b] - firstUse[a] || group[a] - group[b] || a - b);
    const size = Math.ceil(list.length / parts);
    list.forEach((v, i) => (rank[v] = r + shift + Math.floor(i / size)));
    shift += parts - 1;
  });
}
