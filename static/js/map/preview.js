/**
 * The dry run: what an operation would do, step by step, before anybody confirms it. The dialog stands beside the
 * graph, which shows the same steps by number.
 */

import { api, ProblemError } from "../api.js";
import { button, el, fill, must, refuse } from "../dom.js";
import { capital, plural } from "../words.js";
import { heldBy, planBody, waveOf } from "./plan.js";

/**
 * @typedef {import("../types.js").Kind} Kind
 * @typedef {import("../types.js").Plan} Plan
 * @typedef {import("../types.js").Operation} Operation
 * @typedef {"alone"|"with_dependencies"|"with_dependents"} Scope
 */

/** @type {[Scope, string][]} */
const SCOPES = [
  ["alone", "Only this component"],
  ["with_dependencies", "With what it needs"],
  ["with_dependents", "With what needs it"],
];

/** @type {Record<Kind, string>} */
const TITLES = { start: "Start", stop: "Stop", restart: "Restart", repair: "Repair branch of" };

/**
 * @param {object} context
 * @param {import("./store.js").Store} context.store
 * @param {import("./renderer.js").GraphRenderer} context.renderer
 * @param {(operation: Operation) => void} context.onStarted
 */
export function createPreview({ store, renderer, onStarted }) {
  const dialog = /** @type {HTMLDialogElement} */ (must("[data-part=preview]"));
  /** @type {AbortController|null} */
  let asking = null;

  dialog.addEventListener("close", () => {
    asking?.abort();
    renderer.showPlan(null);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  /**
   * @param {Kind} kind
   * @param {import("../types.js").Component} [component]  none means the whole Map
   */
  function open(kind, component) {
    /** @type {Scope} */
    let scope = "alone";
    const title = `${TITLES[kind]} ${component?.name ?? store.map.name}`;
    const body = el("div", { class: "sheet__body", tabindex: "0", role: "region", "aria-label": "Plan" });
    const fault = el("div", { role: "alert" });
    const reason = /** @type {HTMLInputElement} */ (
      el("input", {
        class: "input",
        id: "operation-reason",
        name: "reason",
        autocomplete: "off",
        maxlength: 500,
        placeholder: "Why? Optional, kept with the operation",
      })
    );
    const confirm = button({
      label: TITLES[kind],
      icon: `icon-${kind}`,
      class: kind === "stop" ? "button--danger" : "button--primary",
      press: run,
    });
    confirm.dataset.testid = "confirm-operation";
    const form = el(
      "form",
      { class: "sheet__foot", onsubmit: (/** @type {Event} */ event) => (event.preventDefault(), confirm.click()) },
      fault,
      el("label", { class: "visually-hidden", for: "operation-reason" }, "Reason"),
      reason,
      el("div", { class: "sheet__buttons" }, button({ label: "Cancel", press: () => dialog.close() }), confirm),
    );
    const close = button({
      label: "Close",
      icon: "icon-close",
      class: "button--quiet",
      isIconOnly: true,
      press: () => dialog.close(),
    });
    fill(
      dialog,
      el(
        "header",
        { class: "sheet__head" },
        el(
          "div",
          {},
          el("h2", { id: "preview-title" }, title),
          el(
            "p",
            { class: "faint" },
            "Dry run: nothing happens until you confirm. Then each step begins as soon as what it waits for is done.",
          ),
        ),
        close,
      ),
      component && scopeChoice(kind, (value) => ((scope = value), void ask())),
      body,
      form,
    );
    dialog.showModal();
    void ask();

    function request(/** @type {boolean} */ dryRun) {
      return {
        kind,
        components: component ? [component.id] : [],
        ...(component && { scope }),
        dryRun,
        ...(reason.value.trim() && !dryRun && { reason: reason.value.trim() }),
      };
    }

    async function ask() {
      asking?.abort();
      const mine = (asking = new AbortController());
      refuse(confirm, "The plan is not there yet.");
      fill(fault);
      fill(body, el("div", { class: "skeleton", "aria-label": "Planning…" }, el("i"), el("i"), el("i"), el("i")));
      try {
        show(await api.post(`/maps/${store.map.id}/operations`, request(true), mine.signal));
      } catch (error) {
        if (mine.signal.aborted) return;
        renderer.showPlan(null);
        fill(body);
        refuse(confirm, "There is no plan.");
        fill(
          fault,
          faultOf(error, () => void ask()),
        );
      }
    }

    /** @param {Plan} plan */
    function show(plan) {
      fill(body, planBody(plan, store.map));
      const words =
        plan.steps.length === 0
          ? "Nothing to do"
          : `${kind === "repair" ? "Repair" : TITLES[kind]} ${plural(new Set(plan.steps.map((step) => step.component.id)).size)}`;
      fill(must(".button__text", confirm), words);
      confirm.removeAttribute("aria-label");
      refuse(
        confirm,
        plan.isExecutable && plan.steps.length > 0
          ? null
          : plan.steps.length === 0
            ? "There is nothing to do."
            : "Some steps cannot be run: see the plan.",
      );
      const waves = waveOf(plan.steps);
      const isBeside = dialog.clientWidth < innerWidth * 0.7;
      const covered = isBeside
        ? Math.max(0, renderer.canvas.getBoundingClientRect().right - dialog.getBoundingClientRect().left)
        : 0;
      /** @type {Map<string, number>} a component that stops and starts again is numbered by what comes first */
      const numbers = new Map();
      for (const step of plan.steps) {
        const wave = waves.get(step.key) ?? 1;
        numbers.set(step.component.id, Math.min(wave, numbers.get(step.component.id) ?? wave));
      }
      renderer.showPlan(numbers, { top: 28, bottom: 28, left: 28, right: 28 + covered });
      confirm.focus();
    }

    async function run() {
      refuse(confirm, "Being sent.");
      fill(fault);
      try {
        const operation = await api.post(`/maps/${store.map.id}/operations`, request(false));
        dialog.close();
        onStarted(operation);
      } catch (error) {
        refuse(confirm, null);
        fill(fault, faultOf(error, null));
      }
    }
  }

  return { open };
}

/**
 * @param {Kind} kind
 * @param {(scope: Scope) => void} choose
 */
function scopeChoice(kind, choose) {
  return el(
    "fieldset",
    { class: "scope" },
    el("legend", { class: "visually-hidden" }, `What to ${kind}`),
    SCOPES.map(([value, words]) =>
      el(
        "label",
        { class: "scope__choice" },
        el("input", { type: "radio", name: "scope", value, checked: value === "alone", onchange: () => choose(value) }),
        el("span", {}, words),
      ),
    ),
  );
}

/**
 * @param {unknown} error
 * @param {(() => void)|null} retry
 */
function faultOf(error, retry) {
  if (!(error instanceof ProblemError)) throw error;
  const again = retry && button({ label: "Try again", class: "button--small", press: retry });
  if (error.code === "held")
    return el(
      "div",
      { class: "alert" },
      el(
        "div",
        {},
        el("p", {}, el("b", {}, "Another operation holds what this one needs.")),
        heldBy(error.body.holders ?? []),
      ),
      again,
    );
  const problems = /** @type {import("../types.js").Problem[]} */ (error.body.problems ?? []);
  return el(
    "div",
    { class: "alert" },
    el(
      "div",
      {},
      el("p", {}, capital(error.detail)),
      problems.length > 0 &&
        el(
          "ul",
          {},
          problems.map((problem) => el("li", {}, problem.message)),
        ),
    ),
    again,
  );
}
