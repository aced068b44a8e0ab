/**
 * The graph on its canvas. It draws only when something changed, once per frame at most, and only what is in sight.
 * A second canvas above carries what moves (see pulses.js), so that movement never redraws the graph.
 */

import { FAR, NEAR, drawCard, drawShapes } from "./cards.js";
import { buildEdges, drawEdges, drawPathEdges } from "./edges.js";
import { CARD_HEIGHT, CARD_WIDTH, layoutGraph } from "./layout.js";
import { readPalette } from "./palette.js";
import { pathsOf, reach } from "./paths.js";
import { Pulses } from "./pulses.js";
import { Viewport } from "./viewport.js";

/** @typedef {import("../types.js").OpsMap} OpsMap */
/** @typedef {import("./cards.js").Face} Face */
/** @typedef {import("./viewport.js").Insets} Insets */

const MARGIN = { top: 28, right: 28, bottom: 28, left: 28 };
const MOST_NUMBERED = 200;
const NOBODY = /** @type {ReadonlySet<number>} */ (new Set());

export class GraphRenderer {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLCanvasElement} overlay
   * @param {object} options
   * @param {(id: string) => Face} options.faceOf
   * @param {(scale: number) => void} options.onZoom
   */
  constructor(canvas, overlay, { faceOf, onZoom }) {
    this.canvas = canvas;
    this.overlay = overlay;
    this.faceOf = faceOf;
    this.ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.palette = readPalette(document.body);
    /** @type {OpsMap|null} */
    this.map = null;
    this.aspect = 1;
    this.layout = layoutGraph([], [], { width: 1, height: 1 });
    this.paths = pathsOf(this.layout);
    this.edges = buildEdges(this.layout, []);
    /** @type {Face[]} */
    this.faces = [];
    /** @type {Map<string, string>} */
    this.groupTitles = new Map();
    this.selected = -1;
    this.hovered = -1;
    this.needs = NOBODY;
    this.impact = NOBODY;
    /** @type {Map<number, number>|null} */
    this.plan = null;
    this.insets = MARGIN;
    this.frame = 0;
    this.lastDrawMs = 0;
    this.viewport = new Viewport(() => {
      onZoom(this.viewport.scale);
      this.invalidate();
    });
    this.pulses = new Pulses(overlay, this);
    document.documentElement.addEventListener("themechange", () => {
      this.palette = readPalette(document.body);
      this.invalidate();
    });
    new ResizeObserver(() => this.resize()).observe(canvas);
    // A window dragged to a sharper screen keeps its size, but not its pixels.
    addEventListener("resize", () => this.resize());
  }

  /**
   * Lays a Map out again. The view fits itself unless somebody has moved it.
   * @param {OpsMap} map
   */
  load(map) {
    const selectedId = this.layout.ids[this.selected];
    const place = { width: this.canvas.clientWidth || 1200, height: this.canvas.clientHeight || 640 };
    this.map = map;
    this.aspect = place.width / place.height;
    this.layout = layoutGraph(map.components, map.dependencies, place);
    this.paths = pathsOf(this.layout);
    this.edges = buildEdges(this.layout, map.dependencies);
    this.groupTitles = new Map(map.groups.map((group) => [group.name, group.title || group.name]));
    this.faces = this.layout.ids.map(this.faceOf);
    this.hovered = -1;
    this.pulses.flashes.clear();
    this.select(selectedId ?? null);
    if (this.viewport.isFitted) this.fit(false);
    this.invalidate();
  }

  /**
   * Takes the present face of some components, or of all.
   * @param {Iterable<string>} [ids]
   */
  refresh(ids = this.layout.ids) {
    for (const id of ids) {
      const v = this.layout.indexOf.get(id);
      if (v === undefined) continue;
      const face = this.faceOf(id);
      if (face.state !== this.faces[v].state) this.pulses.flash(v);
      this.faces[v] = face;
    }
    this.invalidate();
  }

  /** @param {string|null} id */
  select(id) {
    this.selected = id === null ? -1 : (this.layout.indexOf.get(id) ?? -1);
    this.updatePaths();
  }

  /** @param {number} v */
  hover(v) {
    if (v === this.hovered) return;
    this.hovered = v;
    this.updatePaths();
  }

  /** Whose paths are shown: that of the component pointed at, else the selected one; a plan speaks alone. */
  get focus() {
    if (this.plan) return -1;
    return this.hovered >= 0 ? this.hovered : this.selected;
  }

  updatePaths() {
    const focus = this.focus;
    this.needs = focus < 0 ? NOBODY : reach(this.paths.needs, focus);
    this.impact = focus < 0 ? NOBODY : reach(this.paths.neededBy, focus);
    this.invalidate();
  }

  /**
   * Shows a plan: its components numbered by wave, all others faint, the view on them.
   * @param {Map<string, number>|null} waves
   * @param {Insets} [insets]  what a dialog covers
   */
  showPlan(waves, insets = MARGIN) {
    this.plan = waves && new Map([...waves].map(([id, wave]) => [this.layout.indexOf.get(id) ?? -1, wave]));
    this.insets = waves ? insets : MARGIN;
    if (this.viewport.isFitted) this.fit(true);
    this.updatePaths();
  }

  /** @param {boolean} isAnimated */
  fit(isAnimated) {
    const { width, height } = this.layout;
    const view = this.viewport.viewOf({ left: 0, top: 0, right: width, bottom: height }, this.insets);
    this.viewport.smallest = Math.min(0.2, view.scale * 0.6);
    this.viewport.moveTo(view, isAnimated);
    this.viewport.isFitted = true;
  }

  /** Moves just as much as it takes to see the selected component. */
  revealSelected() {
    if (this.selected >= 0) this.viewport.moveTo(this.viewport.viewRevealing(this.rectOf(this.selected), 24), true);
  }

  /** @param {number} v */
  rectOf(v) {
    const { x, y } = this.layout;
    return {
      left: x[v] - CARD_WIDTH / 2,
      right: x[v] + CARD_WIDTH / 2,
      top: y[v] - CARD_HEIGHT / 2,
      bottom: y[v] + CARD_HEIGHT / 2,
    };
  }

  /**
   * The component at a place on the screen, relative to the canvas; -1 for none.
   * @param {number} sx
   * @param {number} sy
   */
  at(sx, sy) {
    const { x, y } = this.viewport.toDrawing(sx, sy);
    // From far away a card is smaller than a finger: its neighbourhood counts too.
    const slack = Math.max(0, 6 / this.viewport.scale - 6);
    return this.layout.ids.findIndex(
      (_, v) =>
        Math.abs(this.layout.x[v] - x) <= CARD_WIDTH / 2 + slack &&
        Math.abs(this.layout.y[v] - y) <= CARD_HEIGHT / 2 + slack,
    );
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (width === 0 || height === 0) return;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(width * devicePixelRatio);
      canvas.height = Math.round(height * devicePixelRatio);
    }
    Object.assign(this.viewport, { width, height });
    // A phone was turned, or a hidden graph is shown: worth another direction. A drawer opening is not.
    const turned = Math.abs(Math.log(width / height / this.aspect)) > Math.log(1.9);
    if (this.map && turned && this.viewport.isFitted) this.load(this.map);
    else if (this.viewport.isFitted) this.fit(false);
    else if (this.selected >= 0) this.revealSelected();
    // A resized canvas is empty until drawn: draw now, not a frame later, so that it never blinks.
    this.draw();
  }

  invalidate() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const began = performance.now();
    const { ctx, palette, viewport } = this;
    const { scale } = viewport;
    const ratio = devicePixelRatio;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * viewport.x, ratio * viewport.y);
    const seen = viewport.seen();
    this.drawRegions(seen);
    const isQuiet = this.selected >= 0 || this.hovered >= 0 || this.plan !== null;
    drawEdges(ctx, palette, this.layout, this.edges, seen, scale, isQuiet);
    this.drawFocus(scale);
    if (scale >= FAR) this.drawRegionTitles(seen);
    this.drawComponents(seen, scale);
    this.lastDrawMs = performance.now() - began;
    this.pulses.wake();
  }

  /** @param {import("./viewport.js").Rect} seen */
  drawRegions(seen) {
    const { ctx, palette } = this;
    ctx.lineWidth = Math.max(1, 0.6 / this.viewport.scale);
    ctx.fillStyle = palette.region;
    ctx.strokeStyle = palette.regionBorder;
    for (const region of this.layout.regions) {
      if (!isSeen(region, seen)) continue;
      ctx.beginPath();
      ctx.roundRect(region.left, region.top, region.right - region.left, region.bottom - region.top, 14);
      ctx.fill();
      ctx.stroke();
    }
  }

  /**
   * The titles of the regions, above the lines that pass.
   * @param {import("./viewport.js").Rect} seen
   */
  drawRegionTitles(seen) {
    const { ctx, palette } = this;
    const size = Math.min(17, Math.max(12.5, 10.5 / this.viewport.scale));
    ctx.font = `600 ${size}px ${palette.font}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    for (const region of this.layout.regions) {
      if (!isSeen(region, seen)) continue;
      const title = this.groupTitles.get(region.group) ?? region.group;
      const width = Math.min(ctx.measureText(title).width, region.right - region.titleLeft - 14);
      ctx.fillStyle = palette.region;
      ctx.fillRect(region.titleLeft - 3, region.top + 5, width + 6, 21);
      ctx.fillStyle = palette.textFaint;
      ctx.fillText(title, region.titleLeft + 1, region.top + 16, width);
    }
  }

  /** @param {number} scale */
  drawFocus(scale) {
    const { focus } = this;
    if (focus < 0) return;
    const { ctx, palette, layout, edges, needs, impact } = this;
    drawPathEdges(
      ctx,
      palette.needs,
      layout,
      edges,
      (from, to) => needs.has(from) && (to === focus || needs.has(to)),
      scale,
    );
    drawPathEdges(
      ctx,
      palette.impact,
      layout,
      edges,
      (from, to) => impact.has(to) && (from === focus || impact.has(from)),
      scale,
    );
  }

  /**
   * @param {import("./viewport.js").Rect} seen
   * @param {number} scale
   */
  drawComponents(seen, scale) {
    const { ctx, palette, layout } = this;
    const visible = this.visible(seen);
    /** @param {number} v */
    const isFaint = (v) => this.plan !== null && !this.plan.has(v);
    // From far away a plan of readable size still shows its numbers.
    const planned = this.plan && this.plan.size <= MOST_NUMBERED ? [...this.plan.keys()] : [];
    const emphasized = [...planned, this.selected, this.hovered].filter((v) => v >= 0);
    if (scale < FAR) {
      drawShapes(ctx, palette, visible, layout, this.faces, isFaint, scale);
      for (const v of emphasized) this.drawOne(v, scale);
      return;
    }
    for (const v of visible) this.drawOne(v, scale);
  }

  /**
   * @param {number} v
   * @param {number} scale
   */
  drawOne(v, scale) {
    const emphasis = {
      path: /** @type {"needs"|"impact"|"none"} */ (
        this.needs.has(v) ? "needs" : this.impact.has(v) ? "impact" : "none"
      ),
      isSelected: v === this.selected,
      isHovered: v === this.hovered,
      isFaint: this.plan !== null && !this.plan.has(v),
      wave: this.plan?.get(v) ?? null,
    };
    drawCard(this.ctx, this.palette, this.layout.x[v], this.layout.y[v], this.faces[v], emphasis, scale);
  }

  /**
   * @param {import("./viewport.js").Rect} seen
   * @returns {number[]}
   */
  visible(seen) {
    const { x, y, ids } = this.layout;
    const [mx, my] = [CARD_WIDTH / 2 + 6, CARD_HEIGHT / 2 + 14];
    const found = [];
    for (let v = 0; v < ids.length; v++) {
      if (x[v] + mx > seen.left && x[v] - mx < seen.right && y[v] + my > seen.top && y[v] - my < seen.bottom)
        found.push(v);
    }
    return found;
  }

  /** Whether names can be read at the present scale. */
  get isNear() {
    return this.viewport.scale >= NEAR;
  }
}

/**
 * @param {import("./layout.js").Region} region
 * @param {import("./viewport.js").Rect} seen
 */
function isSeen(region, seen) {
  return region.right > seen.left && region.left < seen.right && region.bottom > seen.top && region.top < seen.bottom;
}
