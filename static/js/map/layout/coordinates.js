/**
 * Third phase of the layout: where each vertex stands along its rank.
 *
 * Every vertex wants to stand level with its neighbours, and vertices of one rank must keep their order and distance.
 * For one rank that is isotonic regression: pooling adjacent violators gives the exact least-squares answer in linear
 * time. Sweeping it forwards and backwards lets the whole drawing relax. Pieces of long lines weigh most, so that
 * long lines run straight, and a last pass makes level what is almost level: a jog of a few pixels only looks wrong.
 */

/** @typedef {import("./order.js").Ranked} Ranked */

/**
 * @typedef {object} Spacing  all in drawing units, along the rank
 * @property {number} card  extent of a card
 * @property {number} line  extent a passing line keeps free
 * @property {number} lineBefore  between a passing line and the card after it, where a region may have its title
 * @property {number} lineAfter  between a card and the line after it
 * @property {number} gap  between cards of one group
 * @property {number} groupGap  between cards of different groups
 */

/**
 * @param {Ranked} ranked
 * @param {Spacing} spacing
 * @returns {Float64Array}  centre of every vertex along its rank
 */
export function placeAlongRanks(ranked, spacing) {
  const centre = new Float64Array(ranked.size);
  const offsets = ranked.ranks.map((list) => rankOffsets(ranked, list, spacing));
  ranked.ranks.forEach((list, r) => {
    const middle = (offsets[r][list.length - 1] ?? 0) / 2;
    list.forEach((v, i) => (centre[v] = offsets[r][i] - middle));
  });
  const rounds = ranked.size < 3000 ? 12 : 5;
  const last = ranked.ranks.length - 1;
  for (let round = 0; round < rounds; round++) {
    const wish = round < rounds - 4 ? meanOfNeighbours : medianOfNeighbours;
    for (let i = 1; i <= last; i++)
      relax(ranked, centre, i, offsets[i], (v) => wish(ranked, centre, v, [ranked.before]));
    for (let i = last - 1; i >= 0; i--) {
      relax(ranked, centre, i, offsets[i], (v) => wish(ranked, centre, v, [ranked.after]));
    }
  }
  const both = [ranked.before, ranked.after];
  for (let i = 0; i <= last; i++)
    relax(ranked, centre, i, offsets[i], (v) => medianOfNeighbours(ranked, centre, v, both));
  for (let pass = 0; pass < 4; pass++) straighten(ranked, centre, offsets);
  return centre;
}

/**
 * The least distance of each vertex of a rank from its first one.
 * @param {Ranked} ranked
 * @param {Int32Array} list
 * @param {Spacing} spacing
 */
function rankOffsets({ n, group }, list, spacing) {
  const offsets = new Float64Array(list.length);
  let lastCard = list[0] < n ? 0 : -1;
  for (let i = 1; i < list.length; i++) {
    const [a, b] = [list[i - 1], list[i]];
    const [isCardA, isCardB] = [a < n, b < n];
    const half = ((isCardA ? spacing.card : spacing.line) + (isCardB ? spacing.card : spacing.line)) / 2;
    let gap = spacing.gap;
    if (isCardA && !isCardB) gap = spacing.lineAfter;
    else if (isCardB && !isCardA) gap = spacing.lineBefore;
    else if (!isCardA) gap = 0;
    offsets[i] = offsets[i - 1] + half + gap;
    if (!isCardB) continue;
    // Also with lines between them, cards of two groups leave room for the borders of both regions.
    if (lastCard >= 0 && group[list[lastCard]] !== group[b])
      offsets[i] = Math.max(offsets[i], offsets[lastCard] + spacing.card + spacing.groupGap);
    lastCard = i;
  }
  return offsets;
}

/**
 * One rank to its least-squares positions.
 * @param {Ranked} ranked
 * @param {Float64Array} centre
 * @param {number} r
 * @param {Float64Array} offsets
 * @param {(v: number) => {at: number, weight: number}} wish
 */
function relax(ranked, centre, r, offsets, wish) {
  /** @type {{sum: number, weight: number, count: number}[]} */
  const pools = [];
  ranked.ranks[r].forEach((v, i) => {
    const { at, weight } = wish(v);
    let pool = { sum: (at - offsets[i]) * weight, weight, count: 1 };
    for (let top = pools.at(-1); top && top.sum / top.weight > pool.sum / pool.weight; top = pools.at(-1)) {
      pools.pop();
      pool = { sum: top.sum + pool.sum, weight: top.weight + pool.weight, count: top.count + pool.count };
    }
    pools.push(pool);
  });
  let i = 0;
  for (const pool of pools) {
    for (let k = 0; k < pool.count; k++, i++) centre[ranked.ranks[r][i]] = pool.sum / pool.weight + offsets[i];
  }
}

/**
 * How much a vertex insists on standing level with a neighbour.
 * @param {Ranked} ranked
 * @param {number} v
 * @param {number} w
 */
function pull({ n }, v, w) {
  if (v >= n && w >= n) return 8;
  return v >= n || w >= n ? 2 : 1;
}

/**
 * @param {Ranked} ranked
 * @param {Float64Array} centre
 * @param {number} v
 * @param {{start: Int32Array, items: Int32Array}[]} sides
 */
function meanOfNeighbours(ranked, centre, v, sides) {
  let [sum, weight] = [0, 0];
  for (const side of sides) {
    for (let i = side.start[v]; i < side.start[v + 1]; i++) {
      const p = pull(ranked, v, side.items[i]);
      sum += p * centre[side.items[i]];
      weight += p;
    }
  }
  // Without a neighbour on this side: stay, but give way to those that have one.
  return weight ? { at: sum / weight, weight } : { at: centre[v], weight: 0.1 };
}

/**
 * The median keeps one line exactly straight where the mean would bend all of them a little.
 * @param {Ranked} ranked
 * @param {Float64Array} centre
 * @param {number} v
 * @param {{start: Int32Array, items: Int32Array}[]} sides
 */
function medianOfNeighbours(ranked, centre, v, sides) {
  const wishes = [];
  let weight = 0;
  for (const side of sides) {
    for (let i = side.start[v]; i < side.start[v + 1]; i++) {
      const p = pull(ranked, v, side.items[i]);
      for (let k = 0; k < p; k++) wishes.push(centre[side.items[i]]);
      weight += p;
    }
  }
  if (!weight) return { at: centre[v], weight: 0.1 };
  wishes.sort((a, b) => a - b);
  const middle = wishes.length >> 1;
  const at = wishes.length % 2 ? wishes[middle] : (wishes[middle - 1] + wishes[middle]) / 2;
  return { at, weight };
}

/**
 * Moves cards, and whole runs of virtual vertices as one, to a level at which more of their lines are straight, as far
 * as their neighbours in the rank leave room.
 * @param {Ranked} ranked
 * @param {Float64Array} centre
 * @param {Float64Array[]} offsets
 */
function straighten(ranked, centre, offsets) {
  for (let v = 0; v < ranked.n; v++) level(ranked, centre, offsets, [v]);
  for (const chain of ranked.chains) {
    let [run, low, high] = [/** @type {number[]} */ ([]), -Infinity, Infinity];
    for (const v of chain.slice(1, -1)) {
      const [from, until] = room(ranked, centre, offsets, v);
      // Where no level suits both what came before and this vertex, the line bends once and goes on straight.
      if (Math.max(low, from) > Math.min(high, until)) {
        level(ranked, centre, offsets, run);
        [run, low, high] = [[], -Infinity, Infinity];
      }
      run.push(v);
      low = Math.max(low, from);
      high = Math.min(high, until);
    }
    if (run.length > 0) level(ranked, centre, offsets, run);
  }
}

/**
 * @param {Ranked} ranked
 * @param {Float64Array} centre
 * @param {Float64Array[]} offsets
 * @param {number[]} run  vertices that move together, to one level
 */
function level(ranked, centre, offsets, run) {
  const { before, after } = ranked;
  let [low, high] = [-Infinity, Infinity];
  const inRun = new Set(run);
  /** @type {number[]} */
  const linked = [];
  for (const v of run) {
    const [from, until] = room(ranked, centre, offsets, v);
    low = Math.max(low, from);
    high = Math.min(high, until);
    for (let i = before.start[v]; i < before.start[v + 1]; i++)
      if (!inRun.has(before.items[i])) linked.push(before.items[i]);
    for (let i = after.start[v]; i < after.start[v + 1]; i++)
      if (!inRun.has(after.items[i])) linked.push(after.items[i]);
  }
  if (low > high || linked.length === 0) return;
  const mean = run.reduce((sum, v) => sum + centre[v], 0) / run.length;
  /** @param {number} at */
  const straight = (at) =>
    linked.reduce((count, w) => count + (Math.abs(centre[w] - at) < 0.01 ? pull(ranked, run[0], w) : 0), 0);
  let best = { at: Math.max(low, Math.min(high, mean)), score: 0 };
  best.score = straight(best.at);
  for (const w of linked) {
    const at = centre[w];
    if (at < low || at > high) continue;
    const score = straight(at);
    if (score > best.score || (score === best.score && Math.abs(at - mean) < Math.abs(best.at - mean)))
      best = { at, score };
  }
  for (const v of run) centre[v] = best.at;
}

/**
 * Between which levels a vertex can move without touching its neighbours in the rank.
 * @param {Ranked} ranked
 * @param {Float64Array} centre
 * @param {Float64Array[]} offsets
 * @param {number} v
 */
function room({ rank, ranks, position }, centre, offsets, v) {
  const [list, offset, i] = [ranks[rank[v]], offsets[rank[v]], position[v]];
  const low = i > 0 ? centre[list[i - 1]] + offset[i] - offset[i - 1] : -Infinity;
  const high = i + 1 < list.length ? centre[list[i + 1]] - offset[i + 1] + offset[i] : Infinity;
  return [low, high];
}
