/**
 * A plan in the dry-run dialog: its steps by wave, what is wrong with any of them, and what stays untouched.
 */

import { el, icon, shape } from "../dom.js";
import { duration } from "../time.js";
import { capital, plural, stateBadge } from "../words.js";

/**
 * @typedef {import("../types.js").Plan} Plan
 * @typedef {import("../types.js").PlanStep} PlanStep
 * @typedef {import("../types.js").Problem} Problem
 */

/**
 * The wave of each step: the first wave waits for nothing, each other one for a step of the wave before.
 * @param {{key: string, after: string[]}[]} steps
 * @returns {Map<string, number>}
 */
export function waveOf(steps) {
  const byKey = new Map(steps.map((step) => [step.key, step]));
  /** @type {Map<string, number>} */
  const waves = new Map();
  // Steps wait in chains of any length, so no recursion: a step is settled when all it waits for are.
  const open = steps.map((step) => step.key).reverse();
  const begun = new Set();
  while (open.length > 0) {
    const key = open[open.length - 1];
    const before = (byKey.get(key)?.after ?? []).filter((other) => byKey.has(other));
    const unsettled = begun.has(key) ? [] : before.filter((other) => !waves.has(other));
    begun.add(key);
    if (unsettled.length > 0) open.push(...unsettled);
    else {
      waves.set(key, 1 + before.reduce((most, other) => Math.max(most, waves.get(other) ?? 0), 0));
      open.pop();
    }
  }
  return waves;
}

/**
 * @param {Plan} plan
 * @param {import("../types.js").OpsMap} map
 * @returns {Node[]}
 */
export function planBody(plan, map) {
  const waves = waveOf(plan.steps);
  const last = Math.max(0, ...waves.values());
  const critical = new Set(plan.criticalPath);
  const parts = [summary(plan, last)];
  const blocked = plan.steps.filter(isBlocked).length;
  const told = new Set(plan.steps.flatMap(({ problems }) => problems.map(({ message }) => message)));
  const others = plan.problems.filter(({ message }) => !told.has(message));
  if (blocked > 0 || others.length > 0) parts.push(problemList(blocked, others, map));
  for (let wave = 1; wave <= last; wave++) {
    const steps = plan.steps.filter((step) => waves.get(step.key) === wave);
    parts.push(waveSection(wave, last, steps, critical));
  }
  if (plan.untouched.length > 0) parts.push(untouchedList(plan));
  return parts;
}

/**
 * @param {Plan} plan
 * @param {number} waves
 */
function summary(plan, waves) {
  if (plan.steps.length === 0)
    return el("p", { class: "plan__summary" }, "There is nothing to do: every component is already as asked.");
  const predicted =
    plan.predictedMs === null ? null : el("span", {}, "about ", el("b", {}, duration(plan.predictedMs)));
  return el(
    "p",
    { class: "plan__summary" },
    el("span", {}, el("b", {}, plan.steps.length), plan.steps.length === 1 ? " step" : " steps"),
    el("span", {}, "in ", el("b", {}, waves), waves === 1 ? " wave" : " waves"),
    predicted,
    plan.untouched.length > 0 && el("span", {}, el("b", {}, plan.untouched.length), " untouched"),
    plan.predictedMs !== null &&
      plan.criticalPath.length > 0 &&
      el("span", { "aria-hidden": "true" }, "◆ longest path"),
  );
}

/**
 * What keeps the plan from being run. Problems of a step stand at the step and are only counted here.
 * @param {number} blocked
 * @param {Problem[]} others
 * @param {import("../types.js").OpsMap} map
 */
function problemList(blocked, others, map) {
  const steps =
    blocked === 1
      ? "1 step cannot be run: it is marked below."
      : `${blocked} steps cannot be run: they are marked below.`;
  return el(
    "div",
    { class: "alert" },
    shape("outcome-bad"),
    el(
      "ul",
      {},
      blocked > 0 && el("li", {}, steps),
      others.map((problem) => el("li", {}, subject(problem, map), problem.message)),
    ),
  );
}

/**
 * Whom a problem is about: an id, a name or both, as the server has it.
 * @param {Problem} problem
 * @param {import("../types.js").OpsMap} map
 */
function subject({ component, message }, map) {
  if (!component) return null;
  const name =
    typeof component === "string"
      ? (map.components.find((c) => c.id === component)?.name ?? component)
      : component.name;
  return message.includes(name) ? null : el("b", {}, `${name}: `);
}

/**
 * @param {number} wave
 * @param {number} last
 * @param {PlanStep[]} steps
 * @param {Set<string>} critical
 */
function waveSection(wave, last, steps, critical) {
  return el(
    "section",
    { class: "wave" },
    el("h3", { class: "wave__title" }, el("span", { class: "wave__number" }, wave), `Wave ${wave} of ${last}`),
    el(
      "ol",
      { class: "wave__steps" },
      steps.map((step) => planStep(step, critical.has(step.key))),
    ),
  );
}

/**
 * @param {PlanStep} step
 * @param {boolean} isCritical
 */
function planStep(step, isCritical) {
  const hasProblem = isBlocked(step);
  return el(
    "li",
    { class: `plan-step ${hasProblem ? "is-blocked" : ""}`.trim() },
    el(
      "div",
      { class: "plan-step__head" },
      icon(`icon-${step.action}`),
      el(
        "span",
        { class: "plan-step__name" },
        el("span", { class: "faint" }, `${capital(step.action)} `),
        el("b", {}, step.component.name),
      ),
      stateBadge(step.component.state),
      step.predictedMs !== null &&
        el(
          "span",
          { class: "faint tabular" },
          duration(step.predictedMs),
          isCritical && [
            el("span", { "aria-hidden": "true" }, " ◆"),
            el("span", { class: "visually-hidden" }, ", on the longest path"),
          ],
        ),
    ),
    el(
      "p",
      { class: "plan-step__command" },
      el("code", { title: step.command }, step.command || "no command"),
      el("span", { class: "faint" }, ` on ${step.host || "no host"}`),
    ),
    hasProblem &&
      el(
        "ul",
        { class: "plan-step__problems" },
        stepProblems(step).map((words) => el("li", {}, shape("outcome-bad"), words)),
      ),
  );
}

/** @param {PlanStep} step */
const isBlocked = (step) => !step.isAllowed || step.problems.length > 0;

/** @param {PlanStep} step */
function stepProblems(step) {
  if (step.problems.length > 0) return step.problems.map((problem) => problem.message);
  return ["You are not permitted to run this step."];
}

/** @param {Plan} plan */
function untouchedList({ untouched }) {
  return el(
    "details",
    { class: "untouched" },
    el("summary", {}, `${plural(untouched.length)} ${untouched.length === 1 ? "stays" : "stay"} untouched`),
    el(
      "ul",
      {},
      untouched.map(({ name, state }) => el("li", {}, el("span", {}, name), stateBadge(state))),
    ),
  );
}

/**
 * @param {{component: {name: string}, operation: {kind: string, requestedBy: {name: string, email: string}|string|null}}[]} holders
 */
export function heldBy(holders) {
  return el(
    "ul",
    {},
    holders.map(({ component, operation }) => {
      const who = operation.requestedBy;
      const by = !who ? "" : ` by ${typeof who === "string" ? who : who.name || who.email}`;
      return el("li", {}, el("b", {}, component.name), ` is held by a running ${operation.kind}${by}.`);
    }),
  );
}
