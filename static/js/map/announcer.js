/**
 * State changes in a few spoken words. Changes of a second are gathered: thirty components that start together are
 * one sentence, not thirty.
 */

import { must } from "../dom.js";

const GATHER_MS = 1000;
const NAMED = 3;

/**
 * @param {import("./store.js").Store} store
 */
export function createAnnouncer(store) {
  const region = must("[data-part=announcer]");
  /** @type {Map<string, {name: string, state: string}>} */
  const changes = new Map();
  /** @type {string[]} */
  const sentences = [];
  let timer = 0;

  /** @param {string} words */
  function say(words) {
    sentences.push(words);
    timer ||= setTimeout(speak, GATHER_MS);
  }

  function speak() {
    timer = 0;
    /** @type {Map<string, string[]>} */
    const byState = new Map();
    for (const { name, state } of changes.values()) byState.set(state, [...(byState.get(state) ?? []), name]);
    for (const [state, names] of byState) sentences.push(sentence(state, names));
    region.textContent = sentences.join(" ");
    changes.clear();
    sentences.length = 0;
  }

  store.subscribe((change) => {
    for (const { before, after } of change.components) {
      if (before.state !== after.state) changes.set(after.id, { name: after.name, state: after.state });
    }
    if (change.mapState) sentences.push(`The Map is ${change.mapState.after}.`);
    if (changes.size > 0 || sentences.length > 0) timer ||= setTimeout(speak, GATHER_MS);
  });

  return {
    say,
    /** At once: the answer to a key the reader just pressed. @param {string} words */
    answer(words) {
      region.textContent = words;
    },
  };
}

/**
 * @param {string} state
 * @param {string[]} names
 */
function sentence(state, names) {
  if (names.length <= NAMED) return `${names.join(", ")} ${names.length === 1 ? "is" : "are"} ${state}.`;
  return `${names.slice(0, NAMED).join(", ")} and ${names.length - NAMED} more are ${state}.`;
}
