/**
 * What the page knows of one Map. Pure: no DOM, no network.
 *
 * Invariant: the Map as first loaded plus every message equals the Map as a fresh load would give it.
 */

/**
 * @typedef {import("../types.js").OpsMap} OpsMap
 * @typedef {import("../types.js").Component} Component
 * @typedef {import("../types.js").Operation} Operation
 * @typedef {import("../types.js").ChangesMessage} ChangesMessage
 */

/**
 * @typedef {object} Change  what one message did
 * @property {boolean} isStructural  components or dependencies came, went or moved: lay out again
 * @property {{before: Component, after: Component}[]} components
 * @property {{before: string, after: string}|null} mapState
 * @property {Operation[]} operations  those that came or changed
 */

/**
 * Whether it runs or waits for its turn.
 * @param {Operation} operation
 */
export const isOpen = ({ state }) => state === "running" || state === "queued";

/**
 * Operations that run or wait, and the one that finished last: exactly what a fresh load answers.
 * @param {Operation[]} operations
 * @returns {Operation[]}  oldest first
 */
export function relevantOperations(operations) {
  const byAge = [...operations].sort((a, b) => (a.createdAt < b.createdAt ? -1 : a.createdAt > b.createdAt ? 1 : 0));
  const finished = byAge.filter((operation) => !isOpen(operation));
  const last = finished.reduce(
    (/** @type {Operation|null} */ best, operation) =>
      !best || (operation.finishedAt ?? "") >= (best.finishedAt ?? "") ? operation : best,
    null,
  );
  return byAge.filter((operation) => isOpen(operation) || operation === last);
}

/**
 * One message applied to one Map; the Map given is left as it was.
 * @param {OpsMap} map
 * @param {ChangesMessage} message
 * @returns {{map: OpsMap, change: Change}}
 */
export function applyChanges(map, message) {
  /** @type {Change} */
  const change = { isStructural: false, components: [], mapState: null, operations: [] };
  // A message that was under way while the whole Map was fetched again is older than what is shown.
  if (message.version < map.version) return { map, change };
  const news = new Map((message.components ?? []).map((item) => [item.id, item]));
  const components =
    news.size === 0
      ? map.components
      : map.components.map((before) => {
          const item = news.get(before.id);
          if (!item || (item.version !== undefined && item.version < before.version)) return before;
          const after = { ...before, ...item };
          change.components.push({ before, after });
          return after;
        });
  const groupStates = new Map((message.groups ?? []).map((group) => [group.name, group.state]));
  const groups = map.groups.map((group) => {
    const state = groupStates.get(group.name);
    return state && state !== group.state ? { ...group, state } : group;
  });
  const changed = message.operations ?? [];
  const ids = new Set(changed.map((operation) => operation.id));
  const operations =
    changed.length === 0
      ? map.operations
      : relevantOperations([...map.operations.filter((operation) => !ids.has(operation.id)), ...changed]);
  change.operations = changed;
  const state = message.mapState ?? map.state;
  if (state !== map.state) change.mapState = { before: map.state, after: state };
  return { map: { ...map, version: message.version, state, groups, components, operations }, change };
}

/**
 * What differs between two loads of the same Map.
 * @param {OpsMap} before
 * @param {OpsMap} after
 * @returns {Change}
 */
export function compareLoads(before, after) {
  const old = new Map(before.components.map((component) => [component.id, component]));
  const components = [];
  for (const component of after.components) {
    const earlier = old.get(component.id);
    if (earlier && earlier.state !== component.state) components.push({ before: earlier, after: component });
  }
  return {
    isStructural: structureOf(before) !== structureOf(after),
    components,
    mapState: before.state === after.state ? null : { before: before.state, after: after.state },
    operations: after.operations,
  };
}

/** @param {OpsMap} map */
function structureOf(map) {
  return JSON.stringify([
    map.components.map((c) => [c.id, c.name, c.type, c.group, c.host]),
    map.dependencies,
    map.groups.map((g) => [g.name, g.title]),
  ]);
}

/**
 * @param {OpsMap} initial
 */
export function createStore(initial) {
  let map = initial;
  let byId = new Map(map.components.map((component) => [component.id, component]));
  /** @type {Set<(change: Change) => void>} */
  const listeners = new Set();

  /** @param {OpsMap} next @param {Change} change */
  function set(next, change) {
    map = next;
    if (change.isStructural || change.components.length > 0)
      byId = new Map(map.components.map((component) => [component.id, component]));
    for (const listener of listeners) listener(change);
  }

  return {
    /** @returns {OpsMap} */
    get map() {
      return map;
    },
    /** @param {string|null} id */
    component: (id) => (id === null ? undefined : byId.get(id)),
    /** @param {(change: Change) => void} listener */
    subscribe(listener) {
      listeners.add(listener);
    },
    /** @param {ChangesMessage} message */
    apply(message) {
      const result = applyChanges(map, message);
      set(result.map, result.change);
    },
    /**
     * A fresh load.
     * @param {OpsMap} fresh
     */
    replace(fresh) {
      if (fresh.version < map.version) return;
      const change = compareLoads(map, fresh);
      byId = new Map(fresh.components.map((component) => [component.id, component]));
      set(fresh, change);
    },
    /**
     * The answer to a request of this page, which usually arrives before the message about it.
     * @param {Operation} operation
     */
    applyOperation(operation) {
      const known = map.operations.find((other) => other.id === operation.id);
      if (known && !isOpen(known)) return;
      const others = map.operations.filter((other) => other.id !== operation.id);
      set(
        { ...map, operations: relevantOperations([...others, operation]) },
        { isStructural: false, components: [], mapState: null, operations: [operation] },
      );
    },
  };
}

/** @typedef {ReturnType<typeof createStore>} Store */

/**
 * How many components are in each state.
 * @param {Component[]} components
 * @returns {Record<string, number>}
 */
export function countStates(components) {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const { state } of components) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
}
