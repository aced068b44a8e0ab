/**
 * The drawer of the selected component. Its head comes from the store and is there at once; the rest is fetched and
 * fetched again whenever the component changes. Sections are replaced only if their content differs, so that a
 * reader's scroll position, selection and opened entries survive.
 */

import { api, ProblemError } from "../api.js";
import { button, el, fill, icon, must, refuse } from "../dom.js";
import { capital, stateBadge, typeIcon } from "../words.js";
import { timeElement } from "../time.js";
import { createLogView } from "./log-view.js";
import { commandSection, factSection, healthSection, historySection, neighbourSection } from "./drawer-sections.js";
import { refusalForComponent } from "./permissions.js";

const SETTLE_MS = 250;

/**
 * @typedef {import("../types.js").Component} Component
 * @typedef {import("../types.js").ComponentDetail} ComponentDetail
 */

/**
 * @param {object} context
 * @param {import("./store.js").Store} context.store
 * @param {import("./selection.js").Selection} context.selection
 * @param {(kind: "start"|"stop"|"restart", component: Component) => void} context.preview
 * @param {() => void} context.returnFocus
 */
export function createDrawer({ store, selection, preview, returnFocus }) {
  const root = must("[data-part=drawer]");
  const narrow = matchMedia("(max-width: 900px)");
  const log = createLogView(() => Boolean(store.map.permissions["component:logs"]));
  const head = el("div", { class: "drawer__head" });
  const actions = el("div", { class: "drawer__actions", role: "group", "aria-label": "Operations on this component" });
  const sections = ["facts", "neighbours", "health", "commands", "log", "history"].map((name) =>
    el("section", { class: "drawer__section", "data-section": name }),
  );
  const [facts, neighbours, health, commands, logPlace, history] = sections;
  const fault = el("p", { class: "drawer__fault", role: "status" });
  logPlace.append(log.element);
  root.append(
    el("div", { class: "drawer__top" }, head, actions),
    el("div", { class: "drawer__scroll" }, fault, ...sections),
  );
  /** @type {Map<Element, string>} what each section shows, to leave it alone while it is the same */
  const shown = new Map();
  /** @type {string|null} */
  let shownId = null;
  /** @type {AbortController|null} */
  let fetching = null;
  let timer = 0;
  /** @type {ComponentDetail|null} */
  let detail = null;
  /** What the running operations are doing to it: when that changes, so do its commands. */
  let work = "";

  const buttons = /** @type {const} */ (["start", "stop", "restart"]).map((kind) => ({
    kind,
    element: button({
      label: capital(kind),
      icon: `icon-${kind}`,
      press: () => {
        const component = store.component(selection.id);
        if (component) preview(kind, component);
      },
    }),
  }));
  actions.append(...buttons.map(({ element }) => element));

  /**
   * @param {Element} section
   * @param {unknown} content
   * @param {() => import("../dom.js").Child[]} build
   */
  function put(section, content, build) {
    const key = JSON.stringify(content);
    if (shown.get(section) === key) return;
    shown.set(section, key);
    const opened = new Set(
      [...section.querySelectorAll("details[open]")].map((details) => details.getAttribute("data-key")),
    );
    const focused = section.contains(document.activeElement) ? document.activeElement?.getAttribute("data-key") : null;
    fill(section, build());
    for (const details of section.querySelectorAll("details"))
      if (opened.has(details.getAttribute("data-key"))) details.open = true;
    if (focused)
      /** @type {HTMLElement|null} */ (section.querySelector(`[data-key="${CSS.escape(focused)}"]`))?.focus();
  }

  /** @param {Component} component */
  function showHead(component) {
    const { name, type, state, stateSince, stateReason, host, agent, operation } = component;
    put(head, [component.id, name, type, state, stateSince, stateReason, host, agent], () => {
      const close = button({
        label: "Close",
        icon: "icon-close",
        class: "button--quiet",
        isIconOnly: true,
        press: dismiss,
      });
      return [
        el("div", { class: "drawer__title" }, icon(typeIcon(type)), el("h2", {}, name), close),
        el(
          "p",
          { class: "drawer__state" },
          stateBadge(state),
          stateSince && el("span", { class: "faint" }, "for ", timeElement(stateSince, "for")),
        ),
        stateReason && el("p", { class: "drawer__reason" }, stateReason),
      ];
    });
    for (const { kind, element } of buttons) refuse(element, refusalForComponent(store.map, component, kind));
    const running = store.map.operations.find(({ id, state: s }) => id === operation && s === "running");
    put(
      facts,
      [
        component.host,
        component.agent,
        component.type,
        component.group,
        component.technology,
        component.labels,
        running?.id,
      ],
      () => factSection(component, store.map, running),
    );
  }

  /** @param {ComponentDetail} detail */
  function showDetail(detail) {
    // States of neighbours come from the store: it hears of changes there first.
    const current = (/** @type {import("../types.js").Neighbour[]} */ list) =>
      list.map((item) => ({ ...item, state: store.component(item.id)?.state ?? item.state }));
    const [needs, neededBy] = [current(detail.dependencies), current(detail.dependents)];
    const choose = (/** @type {string} */ id) => selection.set(id, "link");
    put(neighbours, [needs, neededBy], () => neighbourSection(needs, neededBy, choose));
    put(health, detail.health, () => healthSection(detail.health));
    put(commands, detail.recentCommands, () => commandSection(detail.recentCommands));
    put(history, detail.history, () => historySection(detail.history));
  }

  async function load() {
    const id = selection.id;
    if (id === null) return;
    fetching?.abort();
    const mine = (fetching = new AbortController());
    try {
      const answer = await api.get(`/components/${id}`, mine.signal);
      if (mine.signal.aborted) return;
      detail = answer;
      fill(fault);
      showDetail(answer);
    } catch (error) {
      if (mine.signal.aborted) return;
      if (!(error instanceof ProblemError)) throw error;
      const again = button({ label: "Try again", class: "button--small", press: () => void load() });
      fill(fault, `Details could not be loaded: ${error.detail} `, again);
    }
  }

  /** Soon, and once for a burst of changes. */
  function loadSoon() {
    timer ||= setTimeout(() => {
      timer = 0;
      void load();
    }, SETTLE_MS);
  }

  /** @param {string} id */
  function workOn(id) {
    return store.map.operations
      .flatMap(({ steps }) =>
        steps.filter((step) => step.component.id === id).map((step) => `${step.id} ${step.state}`),
      )
      .join();
  }

  /** Another component, or none: nothing of the one before may stay in sight. */
  function update() {
    const component = store.component(selection.id);
    root.hidden = !component;
    document.body.toggleAttribute("data-drawer", Boolean(component));
    if (component?.id === shownId) return;
    shownId = component?.id ?? null;
    fetching?.abort();
    clearTimeout(timer);
    timer = 0;
    detail = null;
    work = component ? workOn(component.id) : "";
    shown.clear();
    fill(fault);
    for (const section of [neighbours, health, commands, history]) fill(section);
    log.show(component ?? null);
    if (!component) return;
    root.setAttribute("aria-label", `Component ${component.name}`);
    must(".drawer__scroll", root).scrollTop = 0;
    fill(neighbours, el("div", { class: "skeleton", "aria-hidden": "true" }, el("i"), el("i"), el("i")));
    showHead(component);
    void load();
  }

  function dismiss() {
    returnFocus();
    selection.set(null, "page");
  }

  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    event.preventDefault();
    dismiss();
  });

  selection.subscribe((id, source) => {
    update();
    // Where the drawer covers the page, the focus goes with it; a link inside it has just been replaced.
    if (id !== null && source !== "page" && (narrow.matches || source === "link")) root.focus();
  });
  store.subscribe((change) => {
    if (change.isStructural) update();
    const component = store.component(selection.id);
    if (!component) return;
    showHead(component);
    if (detail && change.components.length > 0) showDetail(detail);
    const [before, isChanged] = [work, change.components.some(({ after }) => after.id === component.id)];
    work = workOn(component.id);
    if (isChanged || work !== before || change.isStructural) loadSoon();
  });

  return { focus: () => root.focus() };
}
