/*
 * Light, dark or as the system says. A classic script in <head>, so that the choice stands before the first paint
 * and no page ever flashes; modules run too late for that. Storage may be refused (private windows): then the
 * choice lives as long as the page.
 */
(function () {
  "use strict";

  var KEY = "opsmap.theme";
  var CHOICES = ["system", "light", "dark"];
  /** @type {Record<string, string>} */
  var WORDS = { system: "as the system", light: "light", dark: "dark" };
  var root = document.documentElement;
  var choice = "system";

  /** @returns {string} */
  function stored() {
    try {
      var value = localStorage.getItem(KEY);
      return value !== null && CHOICES.indexOf(value) !== -1 ? value : "system";
    } catch (error) {
      return choice;
    }
  }

  /** @param {string} value */
  function remember(value) {
    try {
      localStorage.setItem(KEY, value);
    } catch (error) {
      choice = value;
    }
  }

  /** @param {string} value */
  function apply(value) {
    choice = value;
    if (value === "system") {
      root.removeAttribute("data-theme");
    } else {
      root.setAttribute("data-theme", value);
    }
    document.querySelectorAll("[data-theme-toggle]").forEach(function (button) {
      var label = "Theme: " + WORDS[value];
      button.setAttribute("aria-label", label);
      button.setAttribute("title", label);
      button.setAttribute("data-choice", value);
    });
    root.dispatchEvent(new CustomEvent("themechange"));
  }

  apply(stored());

  document.addEventListener("DOMContentLoaded", function () {
    apply(choice);
    document.querySelectorAll("[data-theme-toggle]").forEach(function (button) {
      button.addEventListener("click", function () {
        var next = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
        remember(next);
        apply(next);
      });
    });
  });

  // Another tab changed it, or the system went dark at dusk: what is drawn by hand (the graph) must hear of both.
  window.addEventListener("storage", function (event) {
    if (event.key === KEY) {
      apply(stored());
    }
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () {
    root.dispatchEvent(new CustomEvent("themechange"));
  });
})();
