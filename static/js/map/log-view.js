/**
 * The end of a component's log: fetched when asked for, refreshed by hand or followed while it is looked at.
 */

import { api, ProblemError } from "../api.js";
import { button, el, fill, write } from "../dom.js";

const FOLLOW_MS = 2000;
const BYTES = 16_384;

/** @type {Record<string, string>} */
const FAULTS = {
  no_log: "It has not written a log yet: it was never started from here.",
  agent_offline: "Its agent is offline: the log is on the host and cannot be read now.",
};

/**
 * @param {() => boolean} mayRead
 */
export function createLogView(mayRead) {
  const output = el("pre", { class: "log", tabindex: 0, role: "region", "aria-label": "Log", hidden: true });
  const note = el("p", { class: "faint" });
  const follow = /** @type {HTMLInputElement} */ (
    el("input", {
      type: "checkbox",
      name: "follow",
      onchange: () => (follow.checked ? void refresh() : clearTimeout(timer)),
    })
  );
  const refreshButton = button({
    label: "Refresh log",
    icon: "icon-refresh",
    class: "button--quiet button--small",
    isIconOnly: true,
    press: () => void refresh(),
  });
  const tools = el("span", { class: "log__tools" }, el("label", { class: "check" }, follow, "Follow"), refreshButton);
  const element = el("div", {}, el("h3", { class: "drawer__heading" }, "Log", tools), note, output);
  /** @type {import("../types.js").Component|null} */
  let component = null;
  /** @type {AbortController|null} */
  let fetching = null;
  let timer = 0;

  async function refresh() {
    if (!component) return;
    clearTimeout(timer);
    fetching?.abort();
    const mine = (fetching = new AbortController());
    try {
      const answer = await api.get(`/components/${component.id}/log?bytes=${BYTES}`, mine.signal);
      if (!mine.signal.aborted) show(answer);
    } catch (error) {
      if (mine.signal.aborted) return;
      if (!(error instanceof ProblemError)) throw error;
      write(note, FAULTS[error.code] ?? error.detail);
      // A log that cannot be read now stays in sight if it was read before: it is still the last thing known.
      if (error.code === "no_log") output.hidden = true;
    }
    if (follow.checked && !mine.signal.aborted) timer = setTimeout(() => void whenSeen(), FOLLOW_MS);
  }

  /** Nobody follows a log in a hidden tab. */
  function whenSeen() {
    if (!document.hidden) return refresh();
    document.addEventListener("visibilitychange", () => void whenSeen(), { once: true });
  }

  /** @param {{text: string, size: number, isTruncated: boolean}} answer */
  function show({ text, size, isTruncated }) {
    const isAtEnd = output.hidden || output.scrollTop + output.clientHeight >= output.scrollHeight - 24;
    write(
      note,
      text === ""
        ? "The log is empty."
        : isTruncated
          ? `The last ${Math.round(BYTES / 1024)} KiB of ${Math.max(1, Math.round(size / 1024))} KiB.`
          : "",
    );
    write(output, text);
    output.hidden = text === "";
    if (isAtEnd || follow.checked) output.scrollTop = output.scrollHeight;
  }

  return {
    element,
    /** @param {import("../types.js").Component|null} next */
    show(next) {
      component = next;
      fetching?.abort();
      clearTimeout(timer);
      follow.checked = false;
      output.hidden = true;
      fill(note);
      fill(output);
      tools.hidden = !mayRead();
      if (!mayRead()) write(note, "You may not read logs here.");
      else if (next) void refresh();
    },
  };
}
