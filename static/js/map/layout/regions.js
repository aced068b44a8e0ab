/**
 * Groups as regions: rectangles around the cards of a group that never cover a card of another group.
 *
 * Every run of neighbours of one group in a rank is a block. Blocks of a group are joined, cheapest first, while the
 * joined rectangle stays clear of all foreign cards and regions. A group that cannot be one rectangle becomes several.
 */

/**
 * @typedef {{left: number, top: number, right: number, bottom: number}} Rect
 * @typedef {Rect & {group: number, rankFrom: number, rankTo: number, isGone?: boolean}} Block
 */

/**
 * @param {Rect[]} cards
 * @param {Int32Array} group  group of each card, -1 for none
 * @param {Int32Array} rank  rank of each card
 * @param {{x: number, top: number, bottom: number, run: number}} padding  around the cards of a region;
 *   `run` is the largest distance between neighbours of one block
 * @param {boolean} isRightward  whether a rank is a column
 * @returns {(Rect & {group: number, titleLeft: number})[]}
 */
export function groupRegions(cards, group, rank, padding, isRightward) {
  const blocks = findBlocks(cards, group, rank, padding.run, isRightward);
  joinBlocks(blocks, cards, group, padding);
  return blocks
    .filter((block) => !block.isGone)
    .map((block) => ({ ...padded(block, padding), group: block.group, titleLeft: titleLeft(block, cards, group) }));
}

/**
 * A title stands above the leftmost of the highest cards: there the layout keeps lines away.
 * @param {Block} block
 * @param {Rect[]} cards
 * @param {Int32Array} group
 */
function titleLeft(block, cards, group) {
  let left = Infinity;
  for (let v = 0; v < cards.length; v++) {
    if (
      group[v] === block.group &&
      cards[v].top <= block.top + 4 &&
      cards[v].top >= block.top &&
      cards[v].left >= block.left &&
      cards[v].right <= block.right
    ) {
      left = Math.min(left, cards[v].left);
    }
  }
  return left;
}

/**
 * @param {Rect[]} cards
 * @param {Int32Array} group
 * @param {Int32Array} rank
 * @param {number} run
 * @param {boolean} isRightward
 */
function findBlocks(cards, group, rank, run, isRightward) {
  const order = Array.from(cards.keys()).sort(
    (a, b) => rank[a] - rank[b] || (isRightward ? cards[a].top - cards[b].top : cards[a].left - cards[b].left),
  );
  /** @type {Block[]} */
  const blocks = [];
  let previous = -1;
  for (const v of order) {
    const block = blocks.at(-1);
    const distance =
      previous < 0 ? 0 : isRightward ? cards[v].top - cards[previous].bottom : cards[v].left - cards[previous].right;
    if (block && previous >= 0 && rank[previous] === rank[v] && group[previous] === group[v] && distance <= run) {
      Object.assign(block, union(block, cards[v]));
    } else if (group[v] >= 0) {
      blocks.push({ ...cards[v], group: group[v], rankFrom: rank[v], rankTo: rank[v] });
    }
    previous = group[v] >= 0 ? v : -1;
  }
  return blocks;
}

/**
 * @param {Block[]} blocks
 * @param {Rect[]} cards
 * @param {Int32Array} group
 * @param {{x: number, top: number, bottom: number}} padding
 */
function joinBlocks(blocks, cards, group, padding) {
  for (let hasJoined = true; hasJoined;) {
    hasJoined = false;
    const pairs = joinablePairs(blocks);
    for (const { a, b } of pairs) {
      if (a.isGone || b.isGone) continue;
      const joined = union(a, b);
      if (!isClear(padded(joined, padding), a.group, cards, group, blocks, padding)) continue;
      Object.assign(a, joined, { rankFrom: Math.min(a.rankFrom, b.rankFrom), rankTo: Math.max(a.rankTo, b.rankTo) });
      b.isGone = true;
      hasJoined = true;
    }
  }
}

/**
 * Pairs of one group in neighbouring ranks (or the same one), those that would enclose the least nothing first.
 * @param {Block[]} blocks
 */
function joinablePairs(blocks) {
  /** @type {Map<number, Block[]>} */
  const byGroup = new Map();
  for (const block of blocks) {
    const list = byGroup.get(block.group);
    if (block.isGone) continue;
    if (list) list.push(block);
    else byGroup.set(block.group, [block]);
  }
  const pairs = [];
  for (const list of byGroup.values()) {
    list.sort((a, b) => a.rankFrom - b.rankFrom);
    for (let i = 0; i < list.length; i++) {
      for (let j = i + 1; j < list.length && list[j].rankFrom <= list[i].rankTo + 1; j++) {
        const [a, b] = [list[i], list[j]];
        const waste = area(union(a, b)) / (area(a) + area(b));
        if (waste < 3.2) pairs.push({ a, b, waste });
      }
    }
  }
  return pairs.sort((p, q) => p.waste - q.waste);
}

/**
 * @param {Rect} rect
 * @param {number} own
 * @param {Rect[]} cards
 * @param {Int32Array} group
 * @param {Block[]} blocks
 * @param {{x: number, top: number, bottom: number}} padding
 */
function isClear(rect, own, cards, group, blocks, padding) {
  for (let v = 0; v < cards.length; v++) {
    if (group[v] !== own && overlaps(rect, cards[v])) return false;
  }
  return blocks.every((block) => block.isGone || block.group === own || !overlaps(rect, padded(block, padding)));
}

/**
 * @param {Rect} a
 * @param {Rect} b
 * @returns {Rect}
 */
function union(a, b) {
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}

/** @param {Rect} r */
const area = (r) => (r.right - r.left) * (r.bottom - r.top);

/** @param {Rect} a @param {Rect} b */
const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/**
 * @param {Rect} r
 * @param {{x: number, top: number, bottom: number}} p
 * @returns {Rect}
 */
const padded = (r, p) => ({
  left: r.left - p.x,
  top: r.top - p.top,
  right: r.right + p.x,
  bottom: r.bottom + p.bottom,
});
