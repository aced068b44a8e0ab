/**
 * The one component in focus, shared by graph, list and drawer, and kept in the address so that a link leads to it.
 */

/** @typedef {"graph"|"list"|"link"|"page"} Source  what chose it */

/**
 * @param {(id: string|null) => string|null} nameOf
 */
export function createSelection(nameOf) {
  /** @type {string|null} */
  let selected = null;
  /** @type {Set<(id: string|null, source: Source) => void>} */
  const listeners = new Set();

  return {
    get id() {
      return selected;
    },
    /**
     * @param {string|null} id
     * @param {Source} source
     */
    set(id, source) {
      const hasChanged = id !== selected;
      selected = id;
      const name = nameOf(id);
      if (hasChanged)
        history.replaceState(history.state, "", name === null ? location.pathname : `#${encodeURIComponent(name)}`);
      for (const listener of listeners) listener(id, source);
    },
    /** @param {(id: string|null, source: Source) => void} listener */
    subscribe(listener) {
      listeners.add(listener);
    },
  };
}

/** @typedef {ReturnType<typeof createSelection>} Selection */

/** The component name in the address, if there is one. */
export function nameInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch (error) {
    if (error instanceof URIError) return "";
    throw error;
  }
}
