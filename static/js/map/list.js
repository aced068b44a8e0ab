/**
 * The Map as a table by group: the same components, states and selection as the graph, for screen readers, tests and
 * everybody who would rather read. It stays in the page while the graph is shown, only out of sight.
 */

import { el, fill, icon, must } from "../dom.js";
import { timeElement } from "../time.js";
import { plural, setStateBadge, stateBadge, typeIcon } from "../words.js";

/**
 * @typedef {import("../types.js").Component} Component
 * @typedef {{row: HTMLElement, choose: HTMLButtonElement, badge: Element, since: HTMLElement}} Row
 */

/** Title and class of each column; the classes say how much room it wants. */
const COLUMNS = [
  ["Component", "name"],
  ["State", "state-column"],
  ["Since", "wide since"],
  ["Host", "wide host"],
  ["Technology", "wider technology"],
];

/**
 * @param {object} context
 * @param {import("./store.js").Store} context.store
 * @param {import("./selection.js").Selection} context.selection
 */
export function createList({ store, selection }) {
  const root = must("[data-part=list]");
  /** @type {Map<string, Row>} */
  const rows = new Map();
  /** @type {Map<string, Element>} */
  const groupBadges = new Map();
  let isShown = true;

  function build() {
    rows.clear();
    groupBadges.clear();
    const { map } = store;
    if (map.components.length === 0) {
      fill(root, el("p", { class: "list__empty faint" }, "This Map has no component yet."));
      return;
    }
    const named = map.groups.map((group) => ({
      ...group,
      members: map.components.filter((c) => c.group === group.name),
    }));
    const known = new Set(map.groups.map((group) => group.name));
    const rest = map.components.filter((c) => c.group === null || !known.has(c.group));
    const sections = named
      .filter((group) => group.members.length > 0)
      .map((group) => section(group.title || group.name, group.members, group));
    if (rest.length > 0) sections.push(section(named.length > 0 ? "Without a group" : "Components", rest, null));
    const titles = COLUMNS.map(([title, width]) => el("span", { class: `list__column ${width}` }, title));
    fill(root, el("div", { class: "list__head", "aria-hidden": "true" }, titles), sections);
    markSelected();
  }

  /**
   * A group is a table of its own: one that is not in sight costs neither layout nor paint.
   * @param {string} title
   * @param {Component[]} members
   * @param {import("../types.js").Group|null} group
   */
  function section(title, members, group) {
    const badge = group && stateBadge(group.state);
    if (group && badge) groupBadges.set(group.name, badge);
    const heading = el(
      "h2",
      { class: "list__title" },
      title,
      badge,
      el("span", { class: "faint" }, plural(members.length)),
    );
    const table = el(
      "table",
      { class: "table", "aria-label": title },
      el(
        "colgroup",
        {},
        COLUMNS.map(([, width]) => el("col", { class: `list__column ${width}` })),
      ),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          COLUMNS.map(([name, width]) => el("th", { scope: "col", class: width }, name)),
        ),
      ),
      el("tbody", {}, members.map(rowOf)),
    );
    const element = el("section", { class: "list__group" }, heading, table);
    // The place an unseen group takes, so that the scroll bar does not jump.
    element.style.containIntrinsicBlockSize = `auto ${44 + 40 * members.length}px`;
    return element;
  }

  /** @param {Component} component */
  function rowOf(component) {
    const badge = stateBadge(component.state);
    const since = el("td", { class: "wide" }, timeElement(component.stateSince, "for"));
    const choose = /** @type {HTMLButtonElement} */ (
      el(
        "button",
        { type: "button", class: "table__name", onclick: () => selection.set(component.id, "list") },
        icon(typeIcon(component.type)),
        el("span", {}, component.name),
      )
    );
    const technology = component.technology
      ? [component.technology.name, component.technology.version].filter(Boolean).join(" ")
      : "";
    const row = el(
      "tr",
      { class: "table__row", "data-component": component.name, "data-state": component.state },
      el("th", { scope: "row" }, choose),
      el("td", {}, badge),
      since,
      el("td", { class: "wide mono" }, component.host || "no host"),
      el("td", { class: "wider" }, technology),
    );
    row.addEventListener("click", (event) => {
      if (!(event.target instanceof Element && event.target.closest("button"))) selection.set(component.id, "list");
    });
    rows.set(component.id, { row, choose, badge, since });
    return row;
  }

  /** @param {Component} component */
  function update(component) {
    const row = rows.get(component.id);
    if (!row) return;
    row.row.dataset.state = component.state;
    setStateBadge(row.badge, component.state);
    fill(row.since, timeElement(component.stateSince, "for"));
  }

  function markSelected() {
    for (const [id, { row, choose }] of rows) {
      const isSelected = id === selection.id;
      row.classList.toggle("is-selected", isSelected);
      choose.setAttribute("aria-pressed", String(isSelected));
      choose.tabIndex = isShown ? 0 : -1;
    }
  }

  root.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const buttons = [...rows.values()].map(({ choose }) => choose);
    const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const next = buttons[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (at < 0 || !next) return;
    event.preventDefault();
    next.focus();
  });

  build();
  store.subscribe((change) => {
    if (change.isStructural) return build();
    for (const { after } of change.components) update(after);
    for (const group of store.map.groups) {
      const badge = groupBadges.get(group.name);
      if (badge) setStateBadge(badge, group.state);
    }
  });
  selection.subscribe((id, source) => {
    markSelected();
    if (id !== null && isShown && source !== "list") rows.get(id)?.row.scrollIntoView({ block: "nearest" });
  });

  return {
    /** Out of sight its buttons leave the tab order, or the focus would vanish from the screen. @param {boolean} isOn */
    show(isOn) {
      isShown = isOn;
      root.classList.toggle("visually-hidden", !isOn);
      markSelected();
      if (isOn && selection.id !== null) rows.get(selection.id)?.row.scrollIntoView({ block: "center" });
    },
    /** Brings the focus back to the component a drawer was opened for. */
    focusSelected() {
      rows.get(selection.id ?? "")?.choose.focus();
    },
  };
}
