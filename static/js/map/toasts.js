/**
 * Short answers that need no reaction: why a button is refused, that something could not be sent.
 */

import { el, must, shape } from "../dom.js";

const SHOWN_MS = 6000;

export function createToasts() {
  const root = must("[data-part=toasts]");

  /**
   * @param {string} words
   * @param {"bad"|"idle"} [outcome]
   */
  function show(words, outcome = "idle") {
    const toast = el(
      "p",
      { class: "toast", "data-outcome": outcome },
      shape(`outcome-${outcome}`),
      el("span", {}, words),
    );
    root.append(toast);
    while (root.childElementCount > 3) root.firstElementChild?.remove();
    setTimeout(() => toast.remove(), SHOWN_MS);
  }

  document.addEventListener("refused", (event) => show(/** @type {CustomEvent<string>} */ (event).detail));
  return { show };
}
