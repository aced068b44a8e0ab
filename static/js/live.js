/**
 * The live connection: one WebSocket that comes back by itself, with growing pauses and jitter, and says plainly
 * whether what is shown is current. After every (re)connect it asks for what was missed since a version.
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const OFFLINE_AFTER_MS = 8_000;
const SIGNED_OUT = 4401;
const NOT_FOUND = 4404;

/**
 * @typedef {"connecting"|"live"|"reconnecting"|"offline"|"signed-out"|"gone"} LiveStatus
 * @typedef {{status: LiveStatus, lastHeard: Date|null}} LiveReport
 */

/**
 * Pauses before the next tries, in milliseconds: doubling, each between half and all of its length.
 * @param {() => number} [random]
 * @returns {Generator<number, never>}
 */
export function* pauses(random = Math.random) {
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    yield pause * (0.5 + random() / 2);
  }
}

export class LiveConnection {
  /**
   * @param {string} path  such as /ws/maps/
   * @param {object} handlers
   * @param {(message: any) => void} handlers.onMessage
   * @param {(report: LiveReport) => void} handlers.onStatus
   * @param {() => number} [handlers.version]  asked after each connect; absent: nothing is sent
   * @param {() => void} [handlers.onOpen]  the connection stands, for the first time or again
   */
  constructor(path, { onMessage, onStatus, version, onOpen }) {
    this.url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
    this.onMessage = onMessage;
    this.onStatus = onStatus;
    this.version = version;
    this.onOpen = onOpen;
    /** @type {LiveStatus} */
    this.status = "connecting";
    /** @type {Date|null} */
    this.lastHeard = null;
    /** @type {WebSocket|null} */
    this.socket = null;
    this.pauses = pauses();
    this.retryTimer = 0;
    this.offlineTimer = 0;
    this.hasBeenLive = false;
    addEventListener("online", () => this.retryNow());
    addEventListener("offline", () => this.socket?.close());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.retryNow();
    });
    this.connect();
  }

  connect() {
    clearTimeout(this.retryTimer);
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.addEventListener("open", () => this.opened(socket));
    socket.addEventListener("message", (event) => {
      this.lastHeard = new Date();
      this.onMessage(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => {
      if (socket === this.socket) this.lost(event.code);
    });
  }

  /** @param {WebSocket} socket */
  opened(socket) {
    clearTimeout(this.offlineTimer);
    this.offlineTimer = 0;
    this.pauses = pauses();
    this.lastHeard = new Date();
    if (this.version) socket.send(JSON.stringify({ type: "since", version: this.version() }));
    this.onOpen?.();
    this.hasBeenLive = true;
    this.report("live");
  }

  /** @param {number} code */
  lost(code) {
    this.socket = null;
    if (code === SIGNED_OUT) return this.report("signed-out");
    if (code === NOT_FOUND) return this.report("gone");
    // While the socket was open nothing was missed: the state shown is from now, not from the last message.
    if (this.status === "live") this.lastHeard = new Date();
    if (this.status !== "offline") this.report(this.hasBeenLive ? "reconnecting" : "connecting");
    this.offlineTimer ||= setTimeout(() => this.report("offline"), OFFLINE_AFTER_MS);
    this.retryTimer = setTimeout(() => this.connect(), this.pauses.next().value);
  }

  /** Tries at once: the network is back, or somebody looks again. */
  retryNow() {
    if (this.socket || this.status === "signed-out" || this.status === "gone") return;
    this.connect();
  }

  /** @param {LiveStatus} status */
  report(status) {
    this.status = status;
    this.onStatus({ status, lastHeard: this.lastHeard });
  }
}
