/**
 * The list of Maps, live: the server rendered the cards, this keeps them current.
 */

import { api, ProblemError } from "../api.js";
import { el, fill, must, write } from "../dom.js";
import { LiveConnection } from "../live.js";
import { clock } from "../time.js";
import { capital, countItems, orderedCounts, plural, setStateBadge, stateBadge } from "../words.js";

/** @typedef {import("../types.js").MapSummary} MapSummary */

const cards = must("[data-map-cards]");
const empty = must("[data-empty]");
const announcer = must("[data-announcer]");
const template = /** @type {HTMLTemplateElement} */ (must("#map-card"));

/**
 * The bar of counts, drawn here because widths may not stand in the page.
 * @param {Element} card
 * @param {Record<string, number>} counts
 */
function drawBar(card, counts) {
  const bar = must("[data-part=bar]", card);
  fill(
    bar,
    orderedCounts(counts).map(([state, count]) => {
      const piece = el("i", { "data-state": state });
      piece.style.flexGrow = String(count);
      return piece;
    }),
  );
}

/**
 * The counts a server-rendered card carries.
 * @param {Element} card
 */
function countsOf(card) {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const item of card.querySelectorAll(".count"))
    counts[item.getAttribute("data-state") ?? ""] = Number(item.getAttribute("data-count"));
  return counts;
}

/** @param {MapSummary} map */
function show(map) {
  const known = cards.querySelector(`[data-map="${CSS.escape(map.id)}"]`);
  if (known && Number(known.getAttribute("data-version")) > map.version) return;
  const card = known ?? /** @type {DocumentFragment} */ (template.content.cloneNode(true)).firstElementChild;
  if (!(card instanceof HTMLElement)) throw new Error("the page has no template for a Map");
  const part = (/** @type {string} */ name) => must(`[data-part=${name}]`, card);
  const before = card.dataset.state;
  Object.assign(card.dataset, { map: map.id, version: map.version, state: map.state });
  part("link").setAttribute("href", map.url);
  write(part("link"), map.name);
  const badge = part("state").firstElementChild;
  if (badge) setStateBadge(badge, map.state);
  else fill(part("state"), stateBadge(map.state));
  write(part("place"), `${map.organization.name} / ${map.workspace.name}`);
  write(part("description"), map.description ?? "");
  fill(part("counts"), countItems(map.counts));
  drawBar(card, map.counts);
  const isRunning = map.operation?.state === "running";
  part("operation").hidden = !isRunning;
  if (map.operation && isRunning) write(part("operation-words"), `${capital(map.operation.kind)} is running`);
  if (!known) cards.append(card);
  else if (before !== map.state) announcer.textContent = `${map.name} is ${map.state}, ${plural(map.componentCount)}.`;
}

/** The socket tells only what changes from now on: what changed before is asked for, and Maps that went away go. */
async function refresh() {
  try {
    /** @type {{results: MapSummary[]}} */
    const { results } = await api.get("/maps");
    const ids = new Set(results.map(({ id }) => id));
    for (const card of [...cards.children]) if (!ids.has(card.getAttribute("data-map") ?? "")) card.remove();
    results.forEach(show);
    showEmptiness();
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    write(must("[data-live-words]"), error.detail);
  }
}

function showEmptiness() {
  cards.hidden = cards.childElementCount === 0;
  empty.hidden = !cards.hidden;
}

for (const card of cards.children) {
  drawBar(card, countsOf(card));
  fill(must("[data-part=counts]", card), countItems(countsOf(card)));
}

new LiveConnection("/ws/maps/", {
  onOpen: () => void refresh(),
  onMessage: (message) => {
    if (message.type !== "maps") return;
    message.maps.forEach(show);
    showEmptiness();
  },
  onStatus: ({ status, lastHeard }) => {
    const from = lastHeard ? `, shown state is from ${clock(lastHeard)}` : "";
    const words = {
      connecting: "Connecting…",
      live: "Live",
      reconnecting: "Reconnecting…",
      offline: `Offline${from}`,
      "signed-out": "Signed out: reload the page",
      gone: "Not available",
    };
    const element = must("[data-live-status]");
    element.dataset.live = status;
    write(must("[data-live-words]", element), words[status]);
  },
});
