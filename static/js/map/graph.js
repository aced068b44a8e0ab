/**
 * The graph as a part of the page: the renderer joined to the store, the selection, the keyboard and the zoom buttons.
 */

import { button, must, write } from "../dom.js";
import { since } from "../time.js";
import { capital, plural } from "../words.js";
import { attachGestures } from "./gestures.js";
import { neighbourByKey } from "./paths.js";
import { GraphRenderer } from "./renderer.js";

/**
 * @typedef {import("./cards.js").Face} Face
 * @typedef {import("./store.js").Store} Store
 */

const ZOOM_STEP = 1.3;

const IN_MOTION = new Set(["starting", "stopping"]);

/** @type {Record<string, string>} what a card says of a step that has not ended */
const STEP_NOTES = { start: "to start", stop: "to stop", restart: "to restart" };

/**
 * @param {object} context
 * @param {Store} context.store
 * @param {import("./selection.js").Selection} context.selection
 * @param {() => void} context.openDrawer  and move the focus into it
 * @param {(words: string) => void} context.announce
 */
export function createGraph({ store, selection, openDrawer, announce }) {
  const root = must("[data-part=graph]");
  const canvas = /** @type {HTMLCanvasElement} */ (must("[data-part=canvas]"));
  const overlay = /** @type {HTMLCanvasElement} */ (must("[data-part=overlay]"));
  const empty = must("[data-part=graph-empty]");
  const level = document.createElement("output");
  level.className = "zoom__level tabular";
  level.setAttribute("aria-label", "Zoom");
  const tip = document.createElement("div");
  tip.className = "graph__tip";
  tip.hidden = true;
  root.append(tip);

  /** Groups that have a region: their cards need no tag. @type {Set<string>} */
  const untagged = new Set();
  const renderer = new GraphRenderer(canvas, overlay, {
    faceOf: (id) => faceOf(store, id, untagged),
    onZoom: (scale) => write(level, `${Math.round(scale * 100)} %`),
  });
  must("[data-part=zoom]").append(
    button({
      label: "Zoom out",
      icon: "icon-minus",
      class: "button--quiet",
      isIconOnly: true,
      press: () => renderer.viewport.zoomBy(1 / ZOOM_STEP),
    }),
    level,
    button({
      label: "Zoom in",
      icon: "icon-plus",
      class: "button--quiet",
      isIconOnly: true,
      press: () => renderer.viewport.zoomBy(ZOOM_STEP),
    }),
    button({
      label: "Show everything",
      icon: "icon-fit",
      class: "button--quiet",
      isIconOnly: true,
      press: () => renderer.fit(true),
    }),
  );

  attachGestures(renderer, {
    press: (v) => selection.set(v < 0 ? null : renderer.layout.ids[v], "graph"),
    point: (v, x, y) => {
      renderer.hover(v);
      showTip(v, x, y);
    },
  });

  /** From far away, names are read by pointing. @param {number} v @param {number} x @param {number} y */
  function showTip(v, x, y) {
    tip.hidden = v < 0 || renderer.isNear;
    if (tip.hidden) return;
    const face = renderer.faces[v];
    tip.textContent = `${face.name} · ${capital(face.state)} · ${face.host}`;
    const isRight = x > root.clientWidth / 2;
    tip.style.left = isRight ? "auto" : `${x + 14}px`;
    tip.style.right = isRight ? `${root.clientWidth - x + 14}px` : "auto";
    tip.style.top = `${Math.min(y + 14, root.clientHeight - 34)}px`;
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (onKey(event)) event.preventDefault();
  });

  /** @param {KeyboardEvent} event @returns {boolean} whether it meant something here */
  function onKey({ key }) {
    const { viewport, layout, paths } = renderer;
    if (key === "+" || key === "=") viewport.zoomBy(ZOOM_STEP);
    else if (key === "-" || key === "_") viewport.zoomBy(1 / ZOOM_STEP);
    else if (key === "0") renderer.fit(true);
    else if (key === "Enter" && selection.id !== null) openDrawer();
    else if (key === "Escape") selection.set(null, "graph");
    else if (key === "ArrowLeft" || key === "ArrowRight" || key === "ArrowUp" || key === "ArrowDown") {
      if (layout.ids.length === 0) return false;
      const v = renderer.selected < 0 ? firstComponent() : neighbourByKey(layout, paths, renderer.selected, key);
      selection.set(layout.ids[v], "graph");
      announce(spoken(v));
    } else return false;
    return true;
  }

  /** The first card in reading order. */
  function firstComponent() {
    const { x, y, ids } = renderer.layout;
    let best = 0;
    for (let v = 1; v < ids.length; v++) if (x[v] + y[v] < x[best] + y[best]) best = v;
    return best;
  }

  /** @param {number} v */
  function spoken(v) {
    const { needs, neededBy } = renderer.paths;
    const face = renderer.faces[v];
    return `${face.name}, ${face.state}, needs ${needs[v].length}, needed by ${neededBy[v].length}`;
  }

  function load() {
    empty.hidden = store.map.components.length > 0;
    renderer.load(store.map);
    untagged.clear();
    for (const region of renderer.layout.regions) untagged.add(region.group);
    renderer.refresh();
    canvas.setAttribute("aria-label", `Graph of ${store.map.name}, ${plural(store.map.components.length)}`);
  }

  load();
  store.subscribe((change) => {
    if (change.isStructural) return load();
    const ids = new Set(change.components.map(({ after }) => after.id));
    for (const operation of change.operations) for (const step of operation.steps) ids.add(step.component.id);
    if (ids.size > 0) renderer.refresh(ids);
  });
  selection.subscribe((id, source) => {
    renderer.select(id);
    // The drawer takes its place first, then the card is brought into what is left.
    if (id !== null)
      requestAnimationFrame(() =>
        source !== "graph" || renderer.isNear || !renderer.viewport.isFitted ? renderer.revealSelected() : undefined,
      );
  });
  setInterval(() => {
    if (!document.hidden && renderer.isNear) renderer.refresh();
  }, 10_000);

  return {
    renderer,
    focus: () => canvas.focus(),
  };
}

/**
 * What the graph shows of a component.
 * @param {Store} store
 * @param {string} id
 * @param {Set<string>} untagged
 * @returns {Face}
 */
function faceOf(store, id, untagged) {
  const component = /** @type {import("../types.js").Component} */ (store.component(id));
  const step = waitingSteps(store.map.operations).get(id);
  const group = component.group;
  return {
    name: component.name,
    type: component.type,
    host: component.host || "no host",
    state: component.state,
    since: since(component.stateSince),
    note: step && !IN_MOTION.has(component.state) ? STEP_NOTES[step.action] : null,
    tag:
      group !== null && !untagged.has(group) ? (store.map.groups.find((g) => g.name === group)?.title ?? group) : null,
  };
}

/** @type {WeakMap<object, Map<string, import("../types.js").Step>>} */
const waiting = new WeakMap();

/**
 * The step each component waits for, found once per set of operations.
 * @param {import("../types.js").Operation[]} operations
 */
function waitingSteps(operations) {
  let found = waiting.get(operations);
  if (!found) {
    const steps = operations
      .filter((operation) => operation.state === "running")
      .flatMap((operation) => operation.steps);
    found = new Map(steps.filter((step) => step.state === "waiting").map((step) => [step.component.id, step]));
    waiting.set(operations, found);
  }
  return found;
}
