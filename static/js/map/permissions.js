/**
 * What may be done to a component or the Map right now, and in plain words why not. The server decides in the end;
 * this only keeps people from asking in vain.
 */

/**
 * @typedef {import("../types.js").Component} Component
 * @typedef {import("../types.js").OpsMap} OpsMap
 * @typedef {import("../types.js").Kind} Kind
 */

const BROKEN = new Set(["failed", "degraded"]);

/** @param {OpsMap} map */
export const brokenComponents = (map) => map.components.filter(({ state }) => BROKEN.has(state));

/**
 * @param {OpsMap} map
 * @param {Component} component
 * @param {"start"|"stop"|"restart"} kind
 * @returns {string|null} why not, or nothing if it can be asked for
 */
export function refusalForComponent(map, component, kind) {
  const has = new Set(component.commands);
  if (!map.permissions[`component:${kind}`]) return `You may not ${kind} components of this Map.`;
  const canRestart = has.has("restart") || (has.has("start") && has.has("stop"));
  if (kind === "restart" ? !canRestart : !has.has(kind)) return `It has no ${kind} command.`;
  if (component.operation) return "An operation is working on it.";
  if (kind === "start" && ["running", "starting"].includes(component.state)) return `It is already ${component.state}.`;
  if (kind === "stop" && ["stopped", "stopping"].includes(component.state)) return `It is already ${component.state}.`;
  if (!component.agent) return `No agent is known for ${component.host || "it"}.`;
  if (!component.agent.isOnline) return `The agent on ${component.agent.hostname || component.host} is offline.`;
  return null;
}

/**
 * @param {OpsMap} map
 * @param {Kind} kind
 * @returns {string|null}
 */
export function refusalForMap(map, kind) {
  const needed = kind === "repair" ? "restart" : kind;
  if (map.components.length === 0) return "This Map has no component.";
  if (!map.permissions[`component:${needed}`]) return `You may not ${needed} components of this Map.`;
  if (kind === "repair" && brokenComponents(map).length === 0) return "Nothing is failed or degraded.";
  if (kind === "start" && map.components.every(({ state }) => state === "running")) return "Everything is running.";
  if (kind !== "start" && kind !== "repair" && map.components.every(({ state }) => state === "stopped"))
    return "Everything is stopped.";
  return null;
}
