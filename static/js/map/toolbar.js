/**
 * The head of the Map page: its state, its counts, and what can be done to the whole of it.
 */

import { button, fill, must, refuse, write } from "../dom.js";
import { countItems, setStateBadge } from "../words.js";
import { brokenComponents, refusalForMap } from "./permissions.js";
import { countStates } from "./store.js";

/** @typedef {import("../types.js").Kind} Kind */

/** @type {{kind: Kind, label: string, text: string}[]} */
const ACTIONS = [
  { kind: "start", label: "Start Map", text: "Start Map" },
  { kind: "stop", label: "Stop Map", text: "Stop Map" },
  { kind: "restart", label: "Restart Map", text: "Restart Map" },
  { kind: "repair", label: "Repair branch", text: "Repair branch" },
];

/**
 * @param {object} context
 * @param {import("./store.js").Store} context.store
 * @param {(kind: Kind) => void} context.preview
 */
export function createToolbar({ store, preview }) {
  const counts = must("[data-part=counts]");
  const badge = must("[data-part=map-state] .state");
  const buttons = ACTIONS.map(({ kind, label, text }) => {
    const element = button({ label, text, icon: `icon-${kind}`, press: () => preview(kind) });
    element.dataset.kind = kind;
    return { kind, element };
  });
  const broken = document.createElement("span");
  broken.className = "button__count tabular";
  const repair = buttons.find(({ kind }) => kind === "repair");
  repair?.element.append(broken);
  must("[data-part=toolbar]").append(...buttons.map(({ element }) => element));

  function update() {
    const { map } = store;
    setStateBadge(badge, map.state);
    fill(counts, countItems(countStates(map.components)));
    for (const { kind, element } of buttons) refuse(element, refusalForMap(map, kind));
    const count = brokenComponents(map).length;
    broken.hidden = count === 0;
    // The prominent button is the one that helps now.
    for (const { kind, element } of buttons)
      element.classList.toggle("button--primary", kind === (count > 0 ? "repair" : "start"));
    write(broken, String(count));
    document.title = `${count > 0 ? `(${count}) ` : ""}${map.name} · OpsMap`;
  }

  update();
  store.subscribe(update);
}
