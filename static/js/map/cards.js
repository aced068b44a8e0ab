/**
 * Drawing one component, at three distances: a card with everything, a card with shape and name, a coloured shape.
 */

import { spritePath } from "../dom.js";
import { capital, stateShape, typeIcon } from "../words.js";
import { CARD_HEIGHT as H, CARD_WIDTH as W } from "./layout.js";

/** @typedef {import("./palette.js").Palette} Palette */

/**
 * @typedef {object} Face  what the graph shows of a component
 * @property {string} name
 * @property {string} type
 * @property {string} host
 * @property {string} state
 * @property {string} since
 * @property {string|null} note  shown instead of since: what an operation is about to do here
 * @property {string|null} tag  its group, where no region says it
 */

/**
 * @typedef {object} Emphasis
 * @property {"none"|"needs"|"impact"} path
 * @property {boolean} isSelected
 * @property {boolean} isHovered
 * @property {boolean} isFaint
 * @property {number|null} wave  its place in the previewed plan
 */

/**
 * From NEAR a card shows everything, from MIDDLE name and state, from FAR shape and name, and below that its shape:
 * what is shown is always large enough to read.
 */
export const NEAR = 0.8;
const MIDDLE = 0.42;
export const FAR = 0.27;

/** @type {Map<string, Path2D>} */
const paths = new Map();

/** @param {string} id */
function path(id) {
  let found = paths.get(id);
  if (!found) paths.set(id, (found = spritePath(id)));
  return found;
}

/** @type {Map<string, string>} */
const shortened = new Map();

/**
 * Text cut to a width with an ellipsis. Measuring is slow, so results are kept; a theme or font never changes widths.
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} text
 * @param {number} width
 */
function fitted(ctx, text, width) {
  const key = `${ctx.font}|${width}|${text}`;
  let result = shortened.get(key);
  if (result === undefined) {
    result = cut(ctx, text, width);
    if (shortened.size > 20_000) shortened.clear();
    shortened.set(key, result);
  }
  return result;
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} text
 * @param {number} width
 */
function cut(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (ctx.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
    else high = middle - 1;
  }
  return `${text.slice(0, low)}…`;
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} id
 * @param {number} x  left
 * @param {number} y  top
 * @param {number} size
 * @param {string} colour
 * @param {boolean} isStroked
 */
function drawPath(ctx, id, x, y, size, colour, isStroked) {
  ctx.save();
  ctx.translate(x, y);
  ctx.scale(size / 16, size / 16);
  if (isStroked) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.4;
    ctx.lineCap = ctx.lineJoin = "round";
    ctx.stroke(path(id));
  } else {
    ctx.fillStyle = colour;
    ctx.fill(path(id), "evenodd");
  }
  ctx.restore();
}

/** States whose cards are tinted: those that want a person. */
const LOUD = new Set(["failed", "degraded", "unreachable"]);

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {number} x  centre
 * @param {number} y
 * @param {Face} face
 * @param {Emphasis} emphasis
 * @param {number} scale
 */
export function drawCard(ctx, palette, x, y, face, emphasis, scale) {
  const colours = palette.states[face.state] ?? palette.states.unknown;
  const [left, top] = [x - W / 2, y - H / 2];
  ctx.globalAlpha = emphasis.isFaint ? 0.32 : 1;
  drawBox(ctx, palette, left, top, colours, face, emphasis, scale);
  if (scale >= NEAR) drawNear(ctx, palette, left, top, face, colours.solid);
  else if (scale >= MIDDLE) drawMiddle(ctx, palette, left, top, face, colours.solid, scale);
  else drawName(ctx, palette, left, top, face, colours.solid, scale);
  if (emphasis.wave !== null)
    drawWave(ctx, palette, left + W, top, emphasis.wave, Math.min(2, Math.max(1, 0.8 / scale)));
  ctx.globalAlpha = 1;
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {number} left
 * @param {number} top
 * @param {import("./palette.js").StateColours} colours
 * @param {Face} face
 * @param {Emphasis} emphasis
 * @param {number} scale
 */
function drawBox(ctx, palette, left, top, colours, face, emphasis, scale) {
  const isLoud = LOUD.has(face.state);
  let [line, width] = [isLoud ? colours.line : palette.borderStrong, 1];
  if (emphasis.isHovered) line = palette.textFaint;
  if (emphasis.path !== "none") [line, width] = [palette[emphasis.path], 1.5];
  ctx.beginPath();
  ctx.roundRect(left, top, W, H, 9);
  ctx.fillStyle = isLoud || scale < MIDDLE ? colours.soft : palette.surface;
  ctx.fill();
  ctx.strokeStyle = line;
  ctx.lineWidth = Math.max(width, (width * 0.75) / scale);
  ctx.stroke();
  ctx.beginPath();
  ctx.roundRect(left, top, 5, H, [9, 0, 0, 9]);
  ctx.fillStyle = colours.solid;
  ctx.fill();
  if (!emphasis.isSelected) return;
  const distance = Math.max(3, 2.5 / scale);
  ctx.beginPath();
  ctx.roundRect(left - distance, top - distance, W + 2 * distance, H + 2 * distance, 9 + distance);
  ctx.strokeStyle = palette.accent;
  ctx.lineWidth = Math.max(2.5, 2.25 / scale);
  ctx.stroke();
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {number} left
 * @param {number} top
 * @param {Face} face
 * @param {string} colour
 */
function drawNear(ctx, palette, left, top, face, colour) {
  ctx.textBaseline = "alphabetic";
  ctx.textAlign = "left";
  drawPath(ctx, typeIcon(face.type), left + 15, top + 12, 17, palette.textFaint, true);
  ctx.font = `600 15px ${palette.font}`;
  ctx.fillStyle = palette.text;
  ctx.fillText(fitted(ctx, face.name, W - 40 - 12), left + 40, top + 26);
  ctx.font = `400 12px ${palette.font}`;
  ctx.fillStyle = palette.textFaint;
  const place = face.tag ? `${face.host} · ${face.tag}` : face.host;
  ctx.fillText(fitted(ctx, place, W - 40 - 12), left + 40, top + 43);
  drawPath(ctx, stateShape(face.state), left + 16, top + 53, 15, colour, false);
  ctx.font = `600 12.5px ${palette.font}`;
  ctx.fillStyle = colour;
  ctx.fillText(capital(face.state), left + 40, top + 65);
  const aside = face.note ?? face.since;
  if (aside) {
    ctx.font = `${face.note ? 550 : 400} 12px ${palette.font}`;
    ctx.fillStyle = face.note ? palette.accent : palette.textFaint;
    ctx.textAlign = "right";
    ctx.fillText(fitted(ctx, aside, 92), left + W - 12, top + 65);
  }
}

/**
 * Name and state.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {number} left
 * @param {number} top
 * @param {Face} face
 * @param {string} colour
 * @param {number} scale
 */
function drawMiddle(ctx, palette, left, top, face, colour, scale) {
  drawPath(ctx, stateShape(face.state), left + 17, top + H / 2 - 13, 26, colour, false);
  ctx.textBaseline = "alphabetic";
  ctx.textAlign = "left";
  let size = Math.round(Math.min(23, 14.5 / scale));
  ctx.font = `600 ${size}px ${palette.font}`;
  const width = W - 54 - 12;
  const needed = ctx.measureText(face.name).width;
  if (needed > width) {
    size = Math.max(16, Math.floor((size * width) / needed));
    ctx.font = `600 ${size}px ${palette.font}`;
  }
  ctx.fillStyle = palette.text;
  ctx.fillText(fitted(ctx, face.name, width), left + 54, top + 34);
  ctx.font = `550 ${Math.round(Math.min(19, 11.5 / scale))}px ${palette.font}`;
  ctx.fillStyle = face.note ? palette.accent : colour;
  ctx.fillText(
    fitted(ctx, face.note ? `${capital(face.state)}, ${face.note}` : capital(face.state), width),
    left + 54,
    top + 59,
  );
}

/**
 * Shape and name, as large as the card allows, on two lines if it must be.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {number} left
 * @param {number} top
 * @param {Face} face
 * @param {string} colour
 * @param {number} scale
 */
function drawName(ctx, palette, left, top, face, colour, scale) {
  drawPath(ctx, stateShape(face.state), left + 17, top + H / 2 - 15, 30, colour, false);
  const size = Math.round(Math.min(25, Math.max(16, 11.5 / scale)));
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  ctx.fillStyle = palette.text;
  ctx.font = `600 ${size}px ${palette.font}`;
  const lines = twoLines(ctx, face.name, W - 66);
  lines.forEach((line, i) =>
    ctx.fillText(line, left + 57, top + H / 2 + 1 + (i - (lines.length - 1) / 2) * size * 1.12),
  );
}

/** @type {Map<string, string[]>} */
const broken = new Map();

/**
 * Breaks a name after a hyphen, dot, underscore or space where that helps.
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} name
 * @param {number} width
 * @returns {string[]}
 */
function twoLines(ctx, name, width) {
  const key = `${ctx.font}|${name}`;
  let lines = broken.get(key);
  if (lines) return lines;
  lines = [fitted(ctx, name, width)];
  if (lines[0] !== name) {
    const breaks = [...name.matchAll(/[-._ /]/g)]
      .map((match) => match.index + 1)
      .filter((at) => ctx.measureText(name.slice(0, at)).width <= width);
    const at = breaks.at(-1);
    if (at) lines = [name.slice(0, at), fitted(ctx, name.slice(at), width)];
  }
  if (broken.size > 20_000) broken.clear();
  broken.set(key, lines);
  return lines;
}

/**
 * The number of a previewed step's wave, on the corner of its card.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {number} x
 * @param {number} y
 * @param {number} wave
 * @param {number} zoom
 */
function drawWave(ctx, palette, x, y, wave, zoom) {
  ctx.beginPath();
  ctx.arc(x - 8, y + 2, 12 * zoom, 0, 2 * Math.PI);
  ctx.fillStyle = palette.accent;
  ctx.fill();
  ctx.fillStyle = palette.onAccent;
  ctx.font = `700 ${13 * zoom}px ${palette.font}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(String(wave), x - 8, y + 2.5 * zoom);
}

/**
 * All components as coloured shapes, state by state, which is what makes thousands of them fast.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Palette} palette
 * @param {Iterable<number>} visible
 * @param {{x: Float64Array, y: Float64Array}} places
 * @param {Face[]} faces
 * @param {(v: number) => boolean} isFaint
 * @param {number} scale
 */
export function drawShapes(ctx, palette, visible, { x, y }, faces, isFaint, scale) {
  /** @type {Map<string, number[]>} */
  const lots = new Map();
  for (const v of visible) {
    const key = `${faces[v].state}${isFaint(v) ? "-" : ""}`;
    const lot = lots.get(key);
    if (lot) lot.push(v);
    else lots.set(key, [v]);
  }
  for (const [key, lot] of lots) {
    const state = key.replace("-", "");
    const colours = palette.states[state] ?? palette.states.unknown;
    ctx.globalAlpha = key.endsWith("-") ? 0.3 : 1;
    ctx.fillStyle = scale < 0.06 ? colours.line : colours.soft;
    ctx.beginPath();
    for (const v of lot) ctx.rect(x[v] - W / 2, y[v] - H / 2, W, H);
    ctx.fill();
    if (scale >= 0.06) stampShapes(ctx, stateShape(state), colours.solid, lot, x, y, scale);
  }
  ctx.globalAlpha = 1;
}

/**
 * One state's shape drawn once, then copied.
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} id
 * @param {string} colour
 * @param {number[]} lot
 * @param {Float64Array} x
 * @param {Float64Array} y
 * @param {number} scale
 */
function stampShapes(ctx, id, colour, lot, x, y, scale) {
  const size = 58;
  const pixels = Math.max(4, Math.round(size * scale * devicePixelRatio));
  const stamp = new OffscreenCanvas(pixels, pixels);
  const stampCtx = /** @type {OffscreenCanvasRenderingContext2D} */ (stamp.getContext("2d"));
  stampCtx.scale(pixels / 16, pixels / 16);
  stampCtx.fillStyle = colour;
  stampCtx.fill(path(id), "evenodd");
  for (const v of lot) ctx.drawImage(stamp, x[v] - size / 2, y[v] - size / 2, size, size);
}
