/**
 * The words and outcomes of states, in one place, so that the graph, the list and the drawer never disagree.
 */

import { el, shape } from "./dom.js";

/** @typedef {import("./types.js").State} State */

/** Most urgent first: the order of counts everywhere. */
export const STATES = /** @type {State[]} */ ([
  "failed",
  "degraded",
  "unreachable",
  "starting",
  "stopping",
  "unknown",
  "stopped",
  "maintenance",
  "running",
]);

/** @param {string} word */
export const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1).replaceAll("_", " ");

/** Types that have an icon; the rest share one. */
const TYPE_ICONS = new Set(["service", "database", "cache", "broker", "web", "batch"]);

/** @param {string} type */
export const typeIcon = (type) => `type-${TYPE_ICONS.has(type) ? type : "other"}`;

/** The drawing of a state, also for one this page does not know yet. @param {string} state */
export const stateShape = (state) => `state-${/** @type {string[]} */ (STATES).includes(state) ? state : "unknown"}`;

/**
 * A state by colour, shape and word.
 * @param {string} state
 * @returns {HTMLElement}
 */
export function stateBadge(state) {
  return el(
    "span",
    { class: "state", "data-state": state },
    shape(stateShape(state)),
    el("span", { class: "state__word" }, capital(state)),
  );
}

/**
 * Makes an existing badge (from a template or stateBadge) show another state.
 * @param {Element} badge
 * @param {string} state
 */
export function setStateBadge(badge, state) {
  if (badge.getAttribute("data-state") === state) return;
  badge.setAttribute("data-state", state);
  badge.querySelector("use")?.setAttribute("href", `#${stateShape(state)}`);
  const word = badge.querySelector(".state__word");
  if (word) word.textContent = capital(state);
}

/** @type {Record<string, [string, string]>} outcome for colour and shape, and the words */
const OUTCOMES = {
  waiting: ["idle", "Waiting"],
  queued: ["idle", "Queued"],
  sent: ["moving", "Sent"],
  received: ["moving", "Received"],
  started: ["moving", "Started"],
  running: ["moving", "Running"],
  succeeded: ["good", "Succeeded"],
  failed: ["bad", "Failed"],
  not_started: ["bad", "Did not start"],
  rejected: ["bad", "Refused by the agent"],
  expired: ["bad", "Expired"],
  cancelled: ["idle", "Cancelled"],
  skipped: ["idle", "Skipped"],
  waived: ["idle", "Skipped by a person"],
  rolled_back: ["unsure", "Rolled back"],
  unknown: ["unsure", "Outcome unknown"],
  healthy: ["good", "Healthy"],
  degraded: ["unsure", "Degraded"],
  unhealthy: ["bad", "Unhealthy"],
};

/**
 * The state of an operation, a step, a command or a health check by colour, shape and word.
 * @param {string} state
 * @returns {HTMLElement}
 */
export function outcomeBadge(state) {
  const [outcome, words] = OUTCOMES[state] ?? ["idle", capital(state)];
  return el(
    "span",
    { class: "state", "data-outcome": outcome },
    shape(`outcome-${outcome}`),
    el("span", { class: "state__word" }, words),
  );
}

/** @param {string} state */
export const outcomeOf = (state) => (OUTCOMES[state] ?? ["idle"])[0];

/**
 * How many components are in each state, most urgent first, none left out but zeros.
 * @param {Record<string, number>} counts
 * @returns {[string, number][]}
 */
export function orderedCounts(counts) {
  const known = STATES.filter((state) => counts[state]).map(
    (state) => /** @type {[string, number]} */ ([state, counts[state]]),
  );
  const others = Object.entries(counts).filter(
    ([state, count]) => count && !(/** @type {string[]} */ (STATES).includes(state)),
  );
  return [...known, ...others];
}

/**
 * "1 component", "3 components".
 * @param {number} count
 * @param {string} [noun]
 */
export const plural = (count, noun = "component") => `${count} ${noun}${count === 1 ? "" : "s"}`;

/**
 * The counts as a list of shapes, numbers and words.
 * @param {Record<string, number>} counts
 */
export function countItems(counts) {
  return orderedCounts(counts).map(([state, count]) =>
    el(
      "li",
      { class: "count", "data-state": state, "data-count": count },
      shape(stateShape(state)),
      el("b", {}, count),
      " ",
      el("span", {}, state),
    ),
  );
}
