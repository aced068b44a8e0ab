/**
 * The REST API as promises: same-origin session, CSRF header, and problem+json turned into errors with a code.
 */

/** An answer that is not a success, in the server's own words. */
export class ProblemError extends Error {
  /**
   * @param {number} status  0 if there was no answer at all
   * @param {string} code
   * @param {string} detail
   * @param {Record<string, any>} [body]
   */
  constructor(status, code, detail, body = {}) {
    super(detail);
    this.name = "ProblemError";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.body = body;
  }
}

/** @returns {string} */
function csrfToken() {
  const match = document.cookie.match(/(?:^|;\s*)csrftoken=([^;]*)/);
  return match ? decodeURIComponent(match[1]) : "";
}

/**
 * @param {string} method
 * @param {string} path  under /api/v1
 * @param {unknown} [body]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
async function request(method, path, body, signal) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRFToken"] = csrfToken();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal,
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ProblemError(0, "offline", "OpsMap did not answer. Check the connection and try again.");
  }
  const type = response.headers.get("Content-Type") ?? "";
  const answer = type.includes("json") ? await response.json() : {};
  if (response.ok) return answer;
  throw new ProblemError(
    response.status,
    answer.code ?? `http_${response.status}`,
    answer.detail ?? answer.title ?? `The server answered ${response.status}.`,
    answer,
  );
}

export const api = {
  /** @param {string} path @param {AbortSignal} [signal] */
  get: (path, signal) => request("GET", path, undefined, signal),
  /** @param {string} path @param {unknown} [body] @param {AbortSignal} [signal] */
  post: (path, body = {}, signal) => request("POST", path, body, signal),
};
