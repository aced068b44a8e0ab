/**
 * The Map page: joins the store, the live connection and the parts that show them.
 */

import { api, ProblemError } from "../api.js";
import { must } from "../dom.js";
import { LiveConnection } from "../live.js";
import { keepTimesCurrent } from "../time.js";
import { createAnnouncer } from "./announcer.js";
import { createBanner } from "./banner.js";
import { createDrawer } from "./drawer.js";
import { createGraph } from "./graph.js";
import { createList } from "./list.js";
import { createOperationPanel } from "./operation-panel.js";
import { createPreview } from "./preview.js";
import { createSelection, nameInAddress } from "./selection.js";
import { createStore } from "./store.js";
import { createToasts } from "./toasts.js";
import { createToolbar } from "./toolbar.js";

const RELOAD_RETRY_MS = 2000;

const store = createStore(JSON.parse(must("#map-data").textContent ?? "{}"));
const selection = createSelection((id) => store.component(id)?.name ?? null);
const toasts = createToasts();
const announcer = createAnnouncer(store);
const narrow = matchMedia("(max-width: 900px)");

const graph = createGraph({ store, selection, openDrawer: () => drawer.focus(), announce: announcer.answer });
const list = createList({ store, selection });
const preview = createPreview({ store, renderer: graph.renderer, onStarted: (operation) => panel.choose(operation) });
const drawer = createDrawer({
  store,
  selection,
  preview: preview.open,
  returnFocus: () => (document.body.dataset.view === "list" ? list.focusSelected() : graph.focus()),
});
const panel = createOperationPanel({ store, selection, toast: toasts.show, announce: announcer.say });
createToolbar({ store, preview: preview.open });
keepTimesCurrent();

/** @param {"graph"|"list"} view */
function showView(view) {
  document.body.dataset.view = view;
  must("[data-part=graph]").hidden = view !== "graph";
  must("[data-part=stage-foot]").hidden = view !== "graph";
  list.show(view === "list");
  for (const choice of document.querySelectorAll("[data-view]:is(button)")) {
    choice.setAttribute("aria-pressed", String(choice.getAttribute("data-view") === view));
  }
}

for (const choice of document.querySelectorAll("button[data-view]")) {
  choice.addEventListener("click", () => showView(choice.getAttribute("data-view") === "list" ? "list" : "graph"));
}
showView(narrow.matches ? "list" : "graph");

/** Takes the component named in the address, so that a link to it opens it. */
function followAddress() {
  const name = nameInAddress();
  const component = store.map.components.find((candidate) => candidate.name === name);
  selection.set(component?.id ?? null, "page");
}
followAddress();
addEventListener("hashchange", followAddress);
store.subscribe(() => {
  if (selection.id !== null && !store.component(selection.id)) selection.set(null, "page");
});

// Live: changes as they come; a change of structure, or a message lost, is a fresh load.
let isReloading = false;

async function reload() {
  if (isReloading) return;
  isReloading = true;
  try {
    store.replace(await api.get(`/maps/${store.map.id}`));
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    if (error.status === 0 || error.status >= 500) setTimeout(() => void reload(), RELOAD_RETRY_MS);
    else toasts.show(`The Map could not be loaded again: ${error.detail}`, "bad");
  } finally {
    isReloading = false;
  }
}

const banner = createBanner(() => live.retryNow());
const live = new LiveConnection(`/ws/maps/${store.map.id}/`, {
  version: () => store.map.version,
  onStatus: (report) => banner.report(report),
  onMessage: (message) => {
    if (message.type === "changes") store.apply(message);
    else if (message.type === "reload") void reload();
  },
});
