/**
 * Mouse, touch and wheel on the graph: drag and wheel move it, pinch and ctrl + wheel zoom, a click selects.
 */

const CLICK_SLACK = 5;

/**
 * @param {import("./renderer.js").GraphRenderer} renderer
 * @param {object} on
 * @param {(v: number) => void} on.press  a component was clicked, or -1 for the ground
 * @param {(v: number, x: number, y: number) => void} on.point  the pointer is over a component, or -1
 */
export function attachGestures(renderer, { press, point }) {
  const { canvas, viewport } = renderer;
  /** @type {Map<number, {x: number, y: number}>} */
  const pointers = new Map();
  let moved = 0;

  /** @param {MouseEvent} event */
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    if (pointers.size === 1) moved = 0;
    else moved = CLICK_SLACK;
    viewport.stop();
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") hover(now);
      return;
    }
    if (pointers.size === 2) pinch(event.pointerId, before, now);
    else {
      moved += Math.hypot(now.x - before.x, now.y - before.y);
      if (moved >= CLICK_SLACK) {
        canvas.dataset.dragging = "";
        point(-1, 0, 0);
        viewport.panBy(now.x - before.x, now.y - before.y);
      }
    }
    pointers.set(event.pointerId, now);
  });

  /** @param {PointerEvent} event */
  const release = (event) => {
    const wasDown = pointers.delete(event.pointerId);
    if (pointers.size === 0) delete canvas.dataset.dragging;
    if (!wasDown || event.type !== "pointerup" || moved >= CLICK_SLACK) return;
    const { x, y } = place(event);
    press(renderer.at(x, y));
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => point(-1, 0, 0));

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const unit =
        event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 32 : event.deltaMode === WheelEvent.DOM_DELTA_PAGE ? 400 : 1;
      const [dx, dy] = [event.deltaX * unit, event.deltaY * unit];
      const { x, y } = place(event);
      point(-1, 0, 0);
      // A pinch on a touchpad arrives as a wheel with ctrl, in steps much smaller than a mouse wheel's.
      if (event.ctrlKey || event.metaKey) viewport.zoomBy(Math.exp(-Math.max(-60, Math.min(60, dy)) * 0.008), x, y);
      else if (event.shiftKey && dx === 0) viewport.panBy(-dy, 0);
      else viewport.panBy(-dx, -dy);
    },
    { passive: false },
  );

  /** @param {{x: number, y: number}} at */
  function hover({ x, y }) {
    const v = renderer.at(x, y);
    canvas.dataset.over = v < 0 ? "ground" : "component";
    point(v, x, y);
  }

  /**
   * @param {number} id
   * @param {{x: number, y: number}} before
   * @param {{x: number, y: number}} now
   */
  function pinch(id, before, now) {
    const other = [...pointers].find(([pointer]) => pointer !== id)?.[1];
    if (!other) return;
    const spread =
      Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    viewport.zoomBy(spread, (now.x + other.x) / 2, (now.y + other.y) / 2);
    viewport.panBy((now.x - before.x) / 2, (now.y - before.y) / 2);
  }
}
