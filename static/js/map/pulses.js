/**
 * What moves on the graph, on a canvas of its own: components that start or stop breathe, a state that changed flashes
 * once. Nothing moves for readers who asked for less motion, in a hidden tab, or while nothing is in motion.
 */

import { CARD_HEIGHT, CARD_WIDTH } from "./layout.js";

const BREATH_MS = 1600;
const FLASH_MS = 900;
const FRAME_MS = 33;
const MOVING = new Set(["starting", "stopping"]);

export class Pulses {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {import("./renderer.js").GraphRenderer} renderer
   */
  constructor(canvas, renderer) {
    this.canvas = canvas;
    this.renderer = renderer;
    this.ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    /** @type {Map<number, number>} component and when it changed */
    this.flashes = new Map();
    this.frame = 0;
    this.lastDrawn = 0;
    this.isDirty = false;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /** @param {number} v */
  flash(v) {
    if (!this.calm.matches) this.flashes.set(v, performance.now());
  }

  /** Begins to draw if there is anything to draw; called after each frame of the graph. */
  wake() {
    this.lastDrawn = 0;
    this.frame ||= requestAnimationFrame((now) => this.step(now));
  }

  /** @param {number} now */
  step(now) {
    this.frame = 0;
    if (now - this.lastDrawn >= FRAME_MS) {
      this.lastDrawn = now;
      if (!this.draw(now)) return;
    }
    if (!document.hidden) this.frame = requestAnimationFrame((next) => this.step(next));
  }

  /**
   * @param {number} now
   * @returns {boolean} whether anything is in motion
   */
  draw(now) {
    const { ctx, renderer } = this;
    const { viewport, layout, faces, palette } = renderer;
    if (this.isDirty) {
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.isDirty = false;
    }
    for (const [v, began] of this.flashes) if (now - began > FLASH_MS || v >= faces.length) this.flashes.delete(v);
    if (this.calm.matches) return false;
    const moving = renderer.visible(viewport.seen()).filter((v) => MOVING.has(faces[v].state) || this.flashes.has(v));
    if (moving.length === 0) return this.flashes.size > 0;
    const ratio = devicePixelRatio;
    ctx.setTransform(ratio * viewport.scale, 0, 0, ratio * viewport.scale, ratio * viewport.x, ratio * viewport.y);
    const breath = 0.5 - 0.5 * Math.cos((now / BREATH_MS) * 2 * Math.PI);
    for (const v of moving) {
      ctx.strokeStyle = (palette.states[faces[v].state] ?? palette.states.unknown).solid;
      const began = this.flashes.get(v);
      if (began !== undefined)
        this.ring(layout.x[v], layout.y[v], 2 + 12 * ((now - began) / FLASH_MS), 1 - (now - began) / FLASH_MS);
      if (MOVING.has(faces[v].state)) this.ring(layout.x[v], layout.y[v], 1.5 + 2.5 * breath, 0.25 + 0.6 * breath);
    }
    ctx.globalAlpha = 1;
    this.isDirty = true;
    return true;
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {number} distance
   * @param {number} alpha
   */
  ring(x, y, distance, alpha) {
    const { ctx } = this;
    const d = distance * Math.max(1, 0.6 / this.renderer.viewport.scale);
    ctx.globalAlpha = Math.max(0, Math.min(1, alpha));
    ctx.lineWidth = Math.max(2, 1.5 / this.renderer.viewport.scale);
    ctx.beginPath();
    ctx.roundRect(x - CARD_WIDTH / 2 - d, y - CARD_HEIGHT / 2 - d, CARD_WIDTH + 2 * d, CARD_HEIGHT + 2 * d, 9 + d);
    ctx.stroke();
  }
}
