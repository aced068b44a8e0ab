/**
 * The sections of the component drawer, each from its data to elements.
 */

import { el, icon, shape } from "../dom.js";
import { absolute, duration, timeElement } from "../time.js";
import { capital, outcomeBadge, outcomeOf, stateBadge, stateShape } from "../words.js";

/**
 * @typedef {import("../types.js").Component} Component
 * @typedef {import("../types.js").Command} Command
 * @typedef {import("../types.js").Neighbour} Neighbour
 */

/**
 * @param {string} title
 * @param {...import("../dom.js").Child} aside
 */
const heading = (title, ...aside) => el("h3", { class: "drawer__heading" }, title, ...aside);

/**
 * @param {Component} component
 * @param {import("../types.js").OpsMap} map
 * @param {import("../types.js").Operation|undefined} operation  the one that holds it
 * @returns {Node[]}
 */
export function factSection(component, map, operation) {
  const { agent, host, technology, group, type, labels } = component;
  const link = !agent
    ? ["idle", "no agent known"]
    : agent.isOnline
      ? ["good", "agent online"]
      : ["unsure", "agent offline"];
  const groupTitle = map.groups.find(({ name }) => name === group)?.title ?? group;
  /** @type {[string, (Node|string|null)[]][]} */
  const facts = [
    [
      "Host",
      [
        el("span", { class: "mono" }, host || "no host"),
        el("span", { class: "state", "data-outcome": link[0] }, shape(`outcome-${link[0]}`), link[1]),
      ],
    ],
    ["Type", [capital(type)]],
  ];
  if (technology) facts.push(["Technology", [[technology.name, technology.version].filter(Boolean).join(" ")]]);
  if (groupTitle) facts.push(["Group", [groupTitle]]);
  const labelList = Object.entries(labels ?? {});
  if (labelList.length > 0)
    facts.push(["Labels", labelList.map(([key, value]) => el("span", { class: "tag" }, `${key}: ${value}`))]);
  if (operation) facts.push(["Operation", [`${capital(operation.kind)} of ${operation.target} is working on it`]]);
  return [
    el("dl", { class: "facts" }, facts.map(([term, values]) => [el("dt", {}, term), el("dd", {}, values)]).flat()),
  ];
}

/**
 * @param {Neighbour[]} needs
 * @param {Neighbour[]} neededBy
 * @param {(id: string) => void} choose
 * @returns {Node[]}
 */
export function neighbourSection(needs, neededBy, choose) {
  return [
    el(
      "div",
      { class: "neighbours" },
      neighbourList("It needs", needs, choose, "Nothing"),
      neighbourList("Needs it", neededBy, choose, "Nobody"),
    ),
  ];
}

/**
 * @param {string} title
 * @param {Neighbour[]} list
 * @param {(id: string) => void} choose
 * @param {string} none
 */
function neighbourList(title, list, choose, none) {
  const items = list.map(({ id, name, kind, state }) =>
    el(
      "li",
      { "data-state": state },
      el(
        "a",
        {
          href: `#${encodeURIComponent(name)}`,
          class: "neighbour",
          "data-key": `${title} ${id}`,
          onclick: (/** @type {Event} */ event) => (event.preventDefault(), choose(id)),
        },
        shape(stateShape(state)),
        el("span", { class: "neighbour__name" }, name),
        el("span", { class: "visually-hidden" }, `, ${state}`),
        kind === "weak" && el("span", { class: "tag" }, "weak"),
      ),
    ),
  );
  return el("div", {}, heading(title), items.length > 0 ? el("ul", {}, items) : el("p", { class: "faint" }, none));
}

/**
 * @param {import("../types.js").ComponentExtra["health"]} health
 * @returns {Node[]}
 */
export function healthSection(health) {
  if (!health || !health.status) return [heading("Health check"), el("p", { class: "faint" }, "No result yet.")];
  return [
    heading("Health check", health.checkedAt ? el("span", { class: "faint" }, timeElement(health.checkedAt)) : null),
    el("p", { class: "health" }, outcomeBadge(health.status)),
    details(health.details),
  ].filter((node) => node !== null);
}

/**
 * Details are words, or facts the check left behind: the terms are the agent's, with spaces for people.
 * @param {unknown} value
 */
function details(value) {
  if (value === null || value === undefined || value === "") return null;
  if (typeof value !== "object") return el("p", { class: "health__details" }, String(value));
  const facts = Object.entries(value).map(([term, fact]) => [
    el("dt", {}, capital(term.replaceAll("_", " "))),
    el("dd", { class: "health__details" }, typeof fact === "object" ? JSON.stringify(fact) : String(fact)),
  ]);
  return facts.length > 0 ? el("dl", { class: "facts" }, facts.flat()) : null;
}

/**
 * @param {Command[]} commands
 * @returns {Node[]}
 */
export function commandSection(commands) {
  const list = el("ul", { class: "commands" }, commands.map(commandEntry));
  return [heading("Recent commands"), commands.length > 0 ? list : el("p", { class: "faint" }, "None was sent yet.")];
}

/** @param {Command} command */
function commandEntry(command) {
  const outcome = outcomeBadge(command.state);
  /** @type {[string, string|Node][]} */
  const facts = [];
  if (command.exitCode !== null) facts.push(["Exit code", String(command.exitCode)]);
  if (command.pid !== null) facts.push(["Process", String(command.pid)]);
  if (command.startedAt) facts.push(["Began", absolute(command.startedAt)]);
  if (command.finishedAt) facts.push(["Ended", absolute(command.finishedAt)]);
  if (command.check)
    facts.push([
      "Check",
      el("span", {}, `${command.check.passed ? "passed" : "not passed"}: `, checkWords(command.check)),
    ]);
  const log = command.logTail
    ? el(
        "pre",
        { class: "log log--short", tabindex: 0, role: "region", "aria-label": "End of its output" },
        command.logTail,
      )
    : null;
  return el(
    "li",
    {},
    el(
      "details",
      { class: "command", "data-key": command.id, "data-outcome": outcomeOf(command.state) },
      el(
        "summary",
        { "data-key": `summary ${command.id}` },
        el("b", { class: "command__name" }, capital(command.name)),
        outcome,
        el("span", { class: "faint tabular" }, command.durationMs === null ? "" : duration(command.durationMs)),
        timeElement(command.createdAt),
        icon("icon-chevron"),
      ),
      command.detail && el("p", { class: "command__detail" }, command.detail),
      facts.length > 0 &&
        el(
          "dl",
          { class: "facts" },
          facts.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]),
        ),
      log,
    ),
  );
}

/** @param {NonNullable<Command["check"]>} check */
function checkWords(check) {
  const words = typeof check.details === "string" ? check.details : check.details ? JSON.stringify(check.details) : "";
  return [capital(check.check_type), words].filter(Boolean).join(", ");
}

/**
 * @param {import("../types.js").ComponentExtra["history"]} history  newest first
 * @returns {Node[]}
 */
export function historySection(history) {
  const items = history.map(({ state, previous, cause, reason, at }) =>
    el(
      "li",
      { class: "timeline__entry", "data-state": state },
      el(
        "div",
        { class: "timeline__head" },
        stateBadge(state),
        el("span", { class: "faint" }, `after ${previous}`),
        timeElement(at),
      ),
      el("p", { class: "timeline__why" }, [capital(cause), reason].filter(Boolean).join(": ")),
    ),
  );
  return [
    heading("History"),
    items.length > 0 ? el("ol", { class: "timeline" }, items) : el("p", { class: "faint" }, "No change was seen yet."),
  ];
}
