/**
 * Which part of the drawing is seen, and how large: screen = drawing × scale + offset.
 */

const LARGEST = 2;
const MOVE_MS = 260;

/** @typedef {{left: number, top: number, right: number, bottom: number}} Rect */
/** @typedef {{top: number, right: number, bottom: number, left: number}} Insets */

export class Viewport {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.width = 1;
    this.height = 1;
    /** Whether it shows everything and nobody has moved it: then it keeps doing so when its size changes. */
    this.isFitted = true;
    this.smallest = 0.02;
    this.animation = 0;
  }

  /** @returns {Rect} what is seen, in drawing units */
  seen() {
    return {
      left: -this.x / this.scale,
      top: -this.y / this.scale,
      right: (this.width - this.x) / this.scale,
      bottom: (this.height - this.y) / this.scale,
    };
  }

  /** @param {number} sx @param {number} sy */
  toDrawing(sx, sy) {
    return { x: (sx - this.x) / this.scale, y: (sy - this.y) / this.scale };
  }

  /** @param {number} dx @param {number} dy */
  panBy(dx, dy) {
    this.stop();
    this.isFitted = false;
    this.x += dx;
    this.y += dy;
    this.onChange();
  }

  /**
   * Zooms so that the point under the pointer stays under it.
   * @param {number} factor
   * @param {number} [sx]
   * @param {number} [sy]
   */
  zoomBy(factor, sx = this.width / 2, sy = this.height / 2) {
    this.stop();
    const scale = Math.max(this.smallest, Math.min(LARGEST, this.scale * factor));
    const real = scale / this.scale;
    this.isFitted = false;
    this.x = sx - (sx - this.x) * real;
    this.y = sy - (sy - this.y) * real;
    this.scale = scale;
    this.onChange();
  }

  /**
   * Where to stand so that a rectangle fills the view, never larger than life.
   * @param {Rect} rect
   * @param {Insets} insets
   */
  viewOf(rect, insets) {
    const width = Math.max(1, this.width - insets.left - insets.right);
    const height = Math.max(1, this.height - insets.top - insets.bottom);
    const scale = Math.min(
      1,
      width / Math.max(1, rect.right - rect.left),
      height / Math.max(1, rect.bottom - rect.top),
    );
    return {
      scale,
      x: insets.left + width / 2 - ((rect.left + rect.right) / 2) * scale,
      y: insets.top + height / 2 - ((rect.top + rect.bottom) / 2) * scale,
    };
  }

  /**
   * The least movement that brings a rectangle into view.
   * @param {Rect} rect
   * @param {number} margin  on the screen
   */
  viewRevealing(rect, margin) {
    const [left, right] = [rect.left * this.scale + this.x, rect.right * this.scale + this.x];
    const [top, bottom] = [rect.top * this.scale + this.y, rect.bottom * this.scale + this.y];
    let [x, y] = [this.x, this.y];
    if (left < margin) x += margin - left;
    else if (right > this.width - margin) x -= Math.min(right - this.width + margin, left - margin);
    if (top < margin) y += margin - top;
    else if (bottom > this.height - margin) y -= Math.min(bottom - this.height + margin, top - margin);
    return { scale: this.scale, x, y };
  }

  /**
   * @param {{scale: number, x: number, y: number}} target
   * @param {boolean} isAnimated
   */
  moveTo(target, isAnimated) {
    this.stop();
    const from = { scale: this.scale, x: this.x, y: this.y };
    const isStill =
      Math.abs(from.x - target.x) < 0.5 && Math.abs(from.y - target.y) < 0.5 && from.scale === target.scale;
    if (!isAnimated || isStill || matchMedia("(prefers-reduced-motion: reduce)").matches) {
      Object.assign(this, target);
      this.onChange();
      return;
    }
    const began = performance.now();
    /** @param {number} now */
    const frame = (now) => {
      const t = Math.min(1, Math.max(0, (now - began) / MOVE_MS));
      const eased = 1 - (1 - t) ** 3;
      this.scale = from.scale * (target.scale / from.scale) ** eased;
      // The offset follows the scale, so that the movement is straight on the screen.
      const part = from.scale === target.scale ? eased : (this.scale - from.scale) / (target.scale - from.scale);
      this.x = from.x + (target.x - from.x) * part;
      this.y = from.y + (target.y - from.y) * part;
      this.animation = t < 1 ? requestAnimationFrame(frame) : 0;
      this.onChange();
    };
    this.animation = requestAnimationFrame(frame);
  }

  stop() {
    cancelAnimationFrame(this.animation);
    this.animation = 0;
  }
}
