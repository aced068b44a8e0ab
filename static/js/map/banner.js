/**
 * Whether what is shown is current, said plainly: nothing while it is, a strip above the Map while it is not.
 */

import { button, el, fill, must, shape } from "../dom.js";
import { clock } from "../time.js";

/**
 * @param {() => void} retry
 */
export function createBanner(retry) {
  const banner = must("[data-part=banner]");

  /**
   * @param {string} tone
   * @param {(Node|string)[]} content
   */
  function show(tone, ...content) {
    banner.dataset.tone = tone;
    fill(banner, ...content);
    banner.hidden = false;
  }

  return {
    /** @param {import("../live.js").LiveReport} report */
    report({ status, lastHeard }) {
      const from = lastHeard ? ` Shown state is from ${clock(lastHeard)}.` : "";
      document.body.dataset.live = status;
      if (status === "live" || status === "connecting") banner.hidden = true;
      else if (status === "reconnecting") show("wait", el("span", { class: "spinner" }), "Reconnecting…");
      else if (status === "offline") {
        const again = button({ label: "Try now", class: "button--small", press: retry });
        show(
          "stale",
          shape("state-unreachable"),
          el("span", {}, el("b", {}, "Offline."), from, " Retrying by itself."),
          again,
        );
      } else if (status === "signed-out") {
        const link = `/sign-in/?next=${encodeURIComponent(location.pathname + location.hash)}`;
        show(
          "stale",
          shape("state-unreachable"),
          el("span", {}, el("b", {}, "You are signed out."), from),
          el("a", { href: link }, "Sign in again"),
        );
      } else
        show(
          "stale",
          shape("state-unreachable"),
          el("span", {}, el("b", {}, "This Map is no longer there for you."), from),
          el("a", { href: "/" }, "All Maps"),
        );
    },
  };
}
