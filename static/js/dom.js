/**
 * Building elements. Text always arrives as text nodes and never as markup, so a name with HTML in it stays a name.
 */

/** @typedef {Node|string|number|null|undefined|false} Child */

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]  on… are listeners, class is the class name, true and false switch
 * @param {...(Child|Child[])} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") {
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...present(children));
  return element;
}

/** @param {(Child|Child[])[]} children */
function present(children) {
  return children
    .flat()
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/**
 * Replaces what is inside.
 * @param {Element} element
 * @param {...(Child|Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

/**
 * Writes text only if it differs: an untouched text node costs nothing and keeps a reader's selection.
 * @param {Element} element
 * @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * A drawing of the sprite (templates/includes/sprite.html).
 * @param {string} id
 * @param {string} className
 * @returns {SVGElement}
 */
function drawing(id, className) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${id}`);
  svg.append(use);
  return svg;
}

/** @param {string} name  such as "icon-start" or "type-database" */
export const icon = (name) => drawing(name, "icon");

/** @param {string} name  such as "state-running" or "outcome-good" */
export const shape = (name) => drawing(name, "shape");

/**
 * The path of a drawing, for the canvas.
 * @param {string} id
 * @returns {Path2D}
 */
export function spritePath(id) {
  const path = document.querySelector(`#${CSS.escape(id)} path`);
  return new Path2D(path?.getAttribute("d") ?? "");
}

/**
 * An element a template promises.
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {HTMLElement}
 */
export function must(selector, root = document) {
  const element = root.querySelector(selector);
  if (!(element instanceof HTMLElement)) throw new Error(`the page has no ${selector}`);
  return element;
}

/**
 * A button; pressing one that is refused says why instead of doing nothing.
 * @param {object} options
 * @param {string} options.label  the accessible name
 * @param {string} [options.text]  what is shown, if it differs; part of the label
 * @param {string} [options.icon]
 * @param {string} [options.class]
 * @param {boolean} [options.isIconOnly]
 * @param {() => void} options.press
 * @returns {HTMLButtonElement}
 */
export function button({ label, text = label, icon: name, class: className = "", isIconOnly = false, press }) {
  const element = /** @type {HTMLButtonElement} */ (
    el(
      "button",
      {
        type: "button",
        class: `button ${className} ${isIconOnly ? "button--icon" : ""}`.replace(/\s+/g, " ").trim(),
        "aria-label": isIconOnly || text !== label ? label : null,
        title: isIconOnly ? label : null,
        onclick: () => {
          if (element.getAttribute("aria-disabled") === "true") {
            document.dispatchEvent(new CustomEvent("refused", { detail: element.dataset.refusal }));
          } else {
            press();
          }
        },
      },
      name && icon(name),
      !isIconOnly && el("span", { class: "button__text" }, text),
    )
  );
  return element;
}

/**
 * Allows a button, or refuses it with a reason. A refused one keeps its place in the tab order, so that the reason can be read.
 * @param {HTMLElement} element
 * @param {string|null} reason
 */
export function refuse(element, reason) {
  if (reason === null) {
    element.removeAttribute("aria-disabled");
    element.removeAttribute("aria-description");
    delete element.dataset.refusal;
    if (!element.classList.contains("button--icon")) element.removeAttribute("title");
  } else {
    element.setAttribute("aria-disabled", "true");
    element.setAttribute("aria-description", reason);
    element.setAttribute("title", reason);
    element.dataset.refusal = reason;
  }
}
