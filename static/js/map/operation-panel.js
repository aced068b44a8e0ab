/**
 * What is being done to the Map: one panel below it with the running operation, its steps live, and afterwards its
 * summary until somebody dismisses it. Several running operations share it by tabs.
 */

import { api, ProblemError } from "../api.js";
import { button, el, fill, icon, must, refuse, write } from "../dom.js";
import { duration, refreshTimes, timeElement } from "../time.js";
import { capital, outcomeBadge, outcomeOf } from "../words.js";
import { waveOf } from "./plan.js";
import { isOpen as isUnderWay } from "./store.js";

/** @typedef {import("../types.js").Operation} Operation */

/** A summary older than this is history when the page opens. */
const FRESH_MS = 10 * 60_000;
const FAILURES_TOLD = 3;
const DISMISSED_KEY = "opsmap.dismissed-operation";

/**
 * @param {object} context
 * @param {import("./store.js").Store} context.store
 * @param {import("./selection.js").Selection} context.selection
 * @param {(words: string, outcome?: "bad"|"idle") => void} context.toast
 * @param {(words: string) => void} context.announce
 */
export function createOperationPanel({ store, selection, toast, announce }) {
  const root = must("[data-part=operation]");
  let dismissed = readDismissed();
  // A phone has no room for the steps unless they are asked for.
  let isOpen = !matchMedia("(max-width: 560px)").matches;
  /** @type {string|null} */
  let chosen = null;
  /** Operations this page saw running: their end is news, whatever the clocks say. @type {Set<string>} */
  const seenRunning = new Set();
  /** Those whose end was announced. @type {Set<string>} */
  const told = new Set();
  /** @type {ReturnType<typeof buildPanel>|null} */
  let panel = null;

  /** @returns {Operation[]} what the panel may show, newest first */
  function candidates() {
    const list = [...store.map.operations].reverse();
    const running = list.filter(isUnderWay);
    const finished = list.find(
      (operation) => !isUnderWay(operation) && operation.id !== dismissed && isNews(operation),
    );
    return finished ? [...running, finished] : running;
  }

  /** @param {Operation} operation */
  function isNews(operation) {
    return (
      seenRunning.has(operation.id) || Date.now() - Date.parse(operation.finishedAt ?? operation.createdAt) < FRESH_MS
    );
  }

  function update() {
    const list = candidates();
    for (const operation of list) if (isUnderWay(operation)) seenRunning.add(operation.id);
    const operation = list.find(({ id }) => id === chosen) ?? list[0];
    root.hidden = !operation;
    root.dataset.operationState = operation?.state ?? "none";
    if (!operation) {
      panel = null;
      fill(root);
      return;
    }
    if (panel?.id !== operation.id) {
      panel = buildPanel(operation);
      fill(root, panel.element);
    }
    panel.update(operation, list);
  }

  /** @param {Operation} first */
  function buildPanel(first) {
    const outcome = el("span", { class: "operation__state" });
    const who = first.requestedBy ? ` by ${first.requestedBy.name || first.requestedBy.email}` : "";
    const elapsed = el("span", { class: "operation__elapsed tabular" });
    const counts = el("span", { class: "operation__counts tabular" });
    const bar = el(
      "div",
      { class: "progress", role: "progressbar", "aria-label": "Steps finished", "aria-valuemin": 0 },
      el("i", { class: "progress__done" }),
      el("i", { class: "progress__bad" }),
      el("i", { class: "progress__moving" }),
    );
    const tabs = el("div", { class: "operation__tabs", role: "group", "aria-label": "Operations" });
    const cancel = button({
      label: "Cancel operation",
      text: "Cancel",
      class: "button--small",
      press: () => void cancelOperation(first.id, cancel),
    });
    const dismiss = button({
      label: "Dismiss",
      icon: "icon-close",
      class: "button--quiet",
      isIconOnly: true,
      press: () => dismissOperation(first.id),
    });
    const fold = button({
      label: "Steps",
      icon: "icon-chevron",
      class: "button--quiet operation__fold",
      isIconOnly: true,
      press: () => setOpen(steps.hidden),
    });
    const failure = el("p", { class: "operation__failure" });
    const steps = el("ol", { class: "steps", tabindex: 0, "aria-label": "Steps" });
    /** @type {Map<string, {element: HTMLElement, key: string}>} */
    const entries = new Map();
    const head = el(
      "div",
      { class: "operation__head" },
      el(
        "div",
        { class: "operation__what" },
        outcome,
        el(
          "span",
          { class: "operation__title" },
          icon(`icon-${first.kind}`),
          el("b", {}, `${capital(first.kind)} ${first.target}`),
        ),
        el(
          "span",
          { class: "operation__who faint" },
          timeElement(first.createdAt),
          who,
          first.reason && ` · ${first.reason}`,
        ),
      ),
      tabs,
      el("div", { class: "operation__tools" }, counts, elapsed, cancel, fold, dismiss),
    );
    const element = el("div", {}, bar, head, failure, steps);

    /** @param {boolean} value */
    function show(value) {
      steps.hidden = !value;
      fold.setAttribute("aria-expanded", String(value));
    }
    /** @param {boolean} value */
    function setOpen(value) {
      isOpen = value;
      show(value);
    }
    // One that had ended before the page was opened is a line, not a quarter of the page.
    show(isOpen && first.state === "running");

    /** @param {Operation} operation */
    function tick(operation) {
      const until = operation.finishedAt ? Date.parse(operation.finishedAt) : Date.now();
      write(elapsed, duration(until - Date.parse(operation.createdAt)));
      refreshTimes(element);
    }

    return {
      id: first.id,
      element,
      tick,
      /** @param {Operation} operation @param {Operation[]} all */
      update(operation, all) {
        const isRunning = isUnderWay(operation);
        if (outcome.dataset.shown !== operation.state) fill(outcome, outcomeBadge(operation.state));
        outcome.dataset.shown = operation.state;
        cancel.hidden = !isRunning;
        dismiss.hidden = isRunning;
        tick(operation);
        showProgress(bar, operation);
        const { total = operation.steps.length, succeeded = 0 } = operation.counts;
        write(counts, `${succeeded} of ${total}`);
        counts.title = Object.entries(operation.counts)
          .filter(([, count]) => count)
          .map(([state, count]) => `${count} ${state}`)
          .join(", ");
        const failed = operation.steps.filter((step) => step.state === "failed");
        failure.hidden = failed.length === 0;
        fill(
          failure,
          failed
            .slice(0, FAILURES_TOLD)
            .map((step) =>
              el("span", {}, el("b", {}, `${step.component.name}: `), step.detail || "failed without saying why"),
            ),
          failed.length > FAILURES_TOLD && el("span", {}, `and ${failed.length - FAILURES_TOLD} more`),
        );
        const ids = all.map(({ id }) => id).join();
        if (tabs.dataset.shown !== ids)
          fill(tabs, all.length > 1 && all.map((other) => tab(other, other.id === operation.id)));
        tabs.dataset.shown = ids;
        showSteps(steps, entries, operation, (id) => selection.set(id, "link"));
      },
    };
  }

  /**
   * @param {Operation} operation
   * @param {boolean} isShown
   */
  function tab(operation, isShown) {
    const element = button({
      label: `${capital(operation.kind)} ${operation.target}`,
      class: "button--small button--quiet",
      press: () => {
        chosen = operation.id;
        update();
      },
    });
    element.setAttribute("aria-pressed", String(isShown));
    return element;
  }

  /**
   * @param {string} id
   * @param {HTMLElement} cancel
   */
  async function cancelOperation(id, cancel) {
    refuse(cancel, "Being cancelled: steps that run are left to finish.");
    try {
      const operation = await api.post(`/operations/${id}/cancel`);
      if (operation?.steps) store.applyOperation(operation);
    } catch (error) {
      refuse(cancel, null);
      if (!(error instanceof ProblemError)) throw error;
      toast(error.detail, "bad");
    }
  }

  /** @param {string} id */
  function dismissOperation(id) {
    dismissed = id;
    try {
      sessionStorage.setItem(DISMISSED_KEY, id);
    } catch (error) {
      // Storage is refused in some private windows; then a reload shows the summary once more.
      if (!(error instanceof DOMException)) throw error;
    }
    update();
  }

  update();
  store.subscribe((change) => {
    for (const operation of change.operations) {
      if (isUnderWay(operation) || !seenRunning.has(operation.id) || told.has(operation.id)) continue;
      told.add(operation.id);
      announce(`${capital(operation.kind)} of ${operation.target} ${operation.state.replace("_", " ")}.`);
    }
    if (change.operations.length > 0) update();
  });
  setInterval(() => {
    const operation = store.map.operations.find(({ id }) => id === panel?.id);
    if (operation?.state === "running" && !document.hidden) panel?.tick(operation);
  }, 500);

  return {
    /** A new operation of this page's own takes the panel. @param {Operation} operation */
    choose(operation) {
      chosen = operation.id;
      seenRunning.add(operation.id);
      store.applyOperation(operation);
    },
  };
}

function readDismissed() {
  try {
    return sessionStorage.getItem(DISMISSED_KEY);
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

/**
 * @param {HTMLElement} bar
 * @param {Operation} operation
 */
function showProgress(bar, { counts, steps, state }) {
  const total = Math.max(1, counts.total ?? steps.length);
  const { succeeded = 0, failed = 0, running = 0 } = counts;
  const [done, bad, moving] = /** @type {HTMLCollectionOf<HTMLElement>} */ (bar.children);
  done.style.width = `${(100 * succeeded) / total}%`;
  bad.style.width = `${(100 * failed) / total}%`;
  moving.style.width = `${(100 * running) / total}%`;
  bar.dataset.state = state === "running" ? "starting" : "";
  bar.setAttribute("aria-valuemax", String(total));
  bar.setAttribute("aria-valuenow", String(succeeded + failed));
}

/**
 * Steps in place: an entry is rebuilt only if it changed. They stand in the order of work, wave by wave.
 * @param {HTMLElement} list
 * @param {Map<string, {element: HTMLElement, key: string}>} entries
 * @param {Operation} operation
 * @param {(componentId: string) => void} choose
 */
function showSteps(list, entries, operation, choose) {
  const waves = waveOf(operation.steps.map(({ id, after }) => ({ key: id, after })));
  const ordered = [...operation.steps].sort((a, b) => (waves.get(a.id) ?? 0) - (waves.get(b.id) ?? 0));
  for (const step of ordered) {
    const key = JSON.stringify([step.state, step.detail, step.startedAt, step.finishedAt]);
    const known = entries.get(step.id);
    if (known?.key === key) continue;
    const element = stepEntry(step, choose);
    if (known) known.element.replaceWith(element);
    else list.append(element);
    entries.set(step.id, { element, key });
  }
}

/**
 * @param {import("../types.js").Step} step
 * @param {(componentId: string) => void} choose
 */
function stepEntry(step, choose) {
  const ended =
    step.startedAt && step.finishedAt ? duration(Date.parse(step.finishedAt) - Date.parse(step.startedAt)) : "";
  return el(
    "li",
    { class: "step", title: step.detail, "data-outcome": outcomeOf(step.state), "data-step-state": step.state },
    outcomeBadge(step.state),
    el(
      "button",
      { type: "button", class: "step__name", onclick: () => choose(step.component.id) },
      el("span", { class: "faint" }, `${capital(step.action)} `),
      step.component.name,
    ),
    el(
      "span",
      { class: "faint tabular" },
      ended || (step.startedAt && step.state === "running" ? timeElement(step.startedAt, "for") : ""),
    ),
  );
}
