/**
 * The colours of the graph, resolved from the design tokens for the theme in force. A canvas cannot use custom
 * properties, and a computed custom property still reads "light-dark(…)", so a probe element does the resolving.
 */

import { STATES } from "../words.js";

/** @typedef {{solid: string, soft: string, line: string}} StateColours */

/**
 * @typedef {object} Palette
 * @property {string} font
 * @property {string} canvas
 * @property {string} surface
 * @property {string} border
 * @property {string} borderStrong
 * @property {string} text
 * @property {string} textSoft
 * @property {string} textFaint
 * @property {string} accent
 * @property {string} onAccent
 * @property {string} edge
 * @property {string} needs
 * @property {string} impact
 * @property {string} region
 * @property {string} regionBorder
 * @property {Record<string, StateColours>} states
 */

/**
 * @param {HTMLElement} parent  an element whose theme counts
 * @returns {Palette}
 */
export function readPalette(parent) {
  const probe = document.createElement("span");
  probe.hidden = true;
  parent.append(probe);
  const computed = getComputedStyle(probe);
  /** @param {string} expression */
  const resolve = (expression) => {
    probe.style.color = expression;
    return computed.color;
  };
  /** @type {Record<string, StateColours>} */
  const states = {};
  for (const state of STATES) {
    const token = `var(--state-${state})`;
    states[state] = {
      solid: resolve(token),
      soft: resolve(`color-mix(in srgb, ${token} 13%, var(--surface))`),
      line: resolve(`color-mix(in srgb, ${token} 55%, var(--surface))`),
    };
  }
  const palette = {
    font: computed.fontFamily,
    canvas: resolve("var(--bg-canvas)"),
    surface: resolve("var(--surface)"),
    border: resolve("var(--border)"),
    borderStrong: resolve("var(--border-strong)"),
    text: resolve("var(--text)"),
    textSoft: resolve("var(--text-soft)"),
    textFaint: resolve("var(--text-faint)"),
    accent: resolve("var(--accent)"),
    onAccent: resolve("light-dark(#ffffff, #0f1319)"),
    edge: resolve("var(--edge)"),
    needs: resolve("var(--edge-needs)"),
    impact: resolve("var(--edge-impact)"),
    region: resolve("var(--region)"),
    regionBorder: resolve("var(--region-border)"),
    states,
  };
  probe.remove();
  return palette;
}
