/**
 * Drawing dependencies: an arrow from what is needed to what needs it, which is the order of a start.
 */

/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./palette.js").Palette} Palette */

const ARROW = 9;

/**
 * @typedef {object} EdgeScene
 * @property {Path2D[]} lines  per route
 * @property {Float64Array} bounds  four numbers per route
 * @property {boolean[]} isWeak
 * @property {Lot[]} lots
 */

/**
 * Lines of one kind in one square of the drawing, to be drawn or left out together from far away.
 * @typedef {{path: Path2D, isWeak: boolean, left: number, top: number, right: number, bottom: number}} Lot
 */
const SQUARE = 4000;

/**
 * @param {Layout} layout
 * @param {import("../types.js").Dependency[]} dependencies
 * @returns {EdgeScene}
 */
export function buildEdges(layout, dependencies) {
  const bounds = new Float64Array(4 * layout.routes.length);
  /** @type {boolean[]} */
  const isWeak = [];
  /** @type {Map<string, Lot>} */
  const lots = new Map();
  const lines = layout.routes.map(({ points, edge }, i) => {
    const line = new Path2D();
    trace(line, points, layout.direction === "right");
    isWeak.push(dependencies[edge].kind === "weak");
    const [left, top, right, bottom] = extent(points);
    bounds.set([left, top, right, bottom], 4 * i);
    const key = [isWeak[i], Math.floor((left + right) / 2 / SQUARE), Math.floor((top + bottom) / 2 / SQUARE)].join();
    const lot = lots.get(key);
    if (lot)
      Object.assign(lot, {
        left: Math.min(lot.left, left),
        top: Math.min(lot.top, top),
        right: Math.max(lot.right, right),
        bottom: Math.max(lot.bottom, bottom),
      });
    else lots.set(key, { path: new Path2D(), isWeak: isWeak[i], left, top, right, bottom });
    lots.get(key)?.path.addPath(line);
    return line;
  });
  return { lines, bounds, isWeak, lots: [...lots.values()] };
}

/**
 * @param {Path2D} path
 * @param {Float64Array} p
 * @param {boolean} isRight
 */
function trace(path, p, isRight) {
  path.moveTo(p[0], p[1]);
  for (let i = 2; i < p.length; i += 4) {
    const [x0, y0, x1, y1] = [p[i - 2], p[i - 1], p[i], p[i + 1]];
    const [mx, my] = [(x0 + x1) / 2, (y0 + y1) / 2];
    if (isRight ? y0 === y1 : x0 === x1) path.lineTo(x1, y1);
    else if (isRight) path.bezierCurveTo(mx, y0, mx, y1, x1, y1);
    else path.bezierCurveTo(x0, my, x1, my, x1, y1);
    if (i + 3 < p.length) path.lineTo(p[i + 2], p[i + 3]);
  }
}

/** @param {Float64Array} p */
function extent(p) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < p.length; i += 2) {
    box[0] = Math.min(box[0], p[i]);
    box[1] = Math.min(box[1], p[i + 1]);
    box[2] = Math.max(box[2], p[i]);
    box[3] = Math.max(box[3], p[i + 1]);
  }
  return box;
}

/**
 * The edges at rest. From far away all at once and without arrow heads, from near only those in sight.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {Layout} layout
 * @param {EdgeScene} scene
 * @param {import("./viewport.js").Rect} seen
 * @param {number} scale
 * @param {boolean} isQuiet  something else is emphasized
 */
export function drawEdges(ctx, palette, layout, scene, seen, scale, isQuiet) {
  ctx.strokeStyle = ctx.fillStyle = palette.edge;
  ctx.globalAlpha = isQuiet ? 0.45 : 1;
  ctx.lineWidth = Math.max(1.5, 0.8 / scale);
  if (scale < 0.3) {
    ctx.globalAlpha *= 0.7;
    for (const lot of scene.lots) {
      if (lot.left > seen.right || lot.right < seen.left || lot.top > seen.bottom || lot.bottom < seen.top) continue;
      ctx.setLineDash(lot.isWeak && scale > 0.2 ? [6, 5] : []);
      ctx.stroke(lot.path);
    }
    ctx.setLineDash([]);
  } else {
    for (let i = 0; i < scene.lines.length; i++) {
      if (isSeen(scene.bounds, i, seen)) drawLine(ctx, layout, scene, i);
    }
  }
  ctx.globalAlpha = 1;
}

/**
 * @param {Float64Array} bounds
 * @param {number} i
 * @param {import("./viewport.js").Rect} seen
 */
function isSeen(bounds, i, seen) {
  return (
    bounds[4 * i] < seen.right &&
    bounds[4 * i + 2] > seen.left &&
    bounds[4 * i + 1] < seen.bottom + ARROW &&
    bounds[4 * i + 3] > seen.top - ARROW
  );
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Layout} layout
 * @param {EdgeScene} scene
 * @param {number} i
 */
function drawLine(ctx, layout, scene, i) {
  if (scene.isWeak[i]) ctx.setLineDash([6, 5]);
  ctx.stroke(scene.lines[i]);
  if (scene.isWeak[i]) ctx.setLineDash([]);
  const { points } = layout.routes[i];
  drawHead(ctx, points[points.length - 2], points[points.length - 1], layout.direction === "right", points);
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {number} x
 * @param {number} y
 * @param {boolean} isRight
 * @param {Float64Array} points
 */
function drawHead(ctx, x, y, isRight, points) {
  const before = isRight ? points[points.length - 4] : points[points.length - 3];
  const back = (isRight ? x : y) > before ? -ARROW : ARROW;
  ctx.beginPath();
  ctx.moveTo(x, y);
  if (isRight) {
    ctx.lineTo(x + back, y - ARROW / 2);
    ctx.lineTo(x + back, y + ARROW / 2);
  } else {
    ctx.lineTo(x - ARROW / 2, y + back);
    ctx.lineTo(x + ARROW / 2, y + back);
  }
  ctx.fill();
}

/**
 * Edges on the way to or from the component in focus.
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} colour
 * @param {Layout} layout
 * @param {EdgeScene} scene
 * @param {(from: number, to: number) => boolean} isOn
 * @param {number} scale
 */
export function drawPathEdges(ctx, colour, layout, scene, isOn, scale) {
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = Math.max(2, 1.6 / scale);
  layout.routes.forEach((route, i) => {
    if (isOn(route.from, route.to)) drawLine(ctx, layout, scene, i);
  });
}
