/**
 * Times in the reader's zone: short and relative to read at a glance, absolute in the title.
 */

import { el, write } from "./dom.js";

const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/**
 * A length of time in at most two units: "12 s", "4 min", "3 h 20 min", "12 d".
 * @param {number} ms
 */
export function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 10) return `${minutes} min ${Math.floor(s % 60)} s`;
  return rough(ms);
}

/**
 * The same in one breath, for cards and lists.
 * @param {number} ms
 */
export function rough(ms) {
  const s = Math.floor(Math.max(0, ms) / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

/** @param {string} iso */
export const absolute = (iso) => FULL.format(new Date(iso));

/** @param {string|number|Date} at */
export const clock = (at) => CLOCK.format(new Date(at));

/**
 * How long something has been so.
 * @param {string|null|undefined} iso
 */
export function since(iso) {
  return iso ? rough(Date.now() - Date.parse(iso)) : "";
}

/**
 * @param {string} iso
 * @param {string} suffix
 */
function relative(iso, suffix) {
  const ms = Date.now() - Date.parse(iso);
  return suffix && ms < 5000 ? "just now" : `${rough(ms)}${suffix}`;
}

/**
 * A <time> that keeps itself current.
 * @param {string|null|undefined} iso
 * @param {"ago"|"for"} [form]  "4 min ago" or "4 min"
 */
export function timeElement(iso, form = "ago") {
  if (!iso) return el("span", { class: "faint" }, "never");
  return el(
    "time",
    { datetime: iso, title: absolute(iso), "data-relative": form },
    relative(iso, form === "ago" ? " ago" : ""),
  );
}

/**
 * Rewrites the relative times inside an element.
 * @param {ParentNode} root
 */
export function refreshTimes(root) {
  for (const element of root.querySelectorAll("time[data-relative]")) {
    const form = element.getAttribute("data-relative");
    write(element, relative(element.getAttribute("datetime") ?? "", form === "ago" ? " ago" : ""));
  }
}

/** Keeps every relative time of the page current; one timer serves all. */
export function keepTimesCurrent() {
  setInterval(() => {
    if (!document.hidden) refreshTimes(document);
  }, 5000);
}
