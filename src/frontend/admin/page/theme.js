// The theme of a page: as the system has it, or as its reader has chosen.

import { mark, say } from "./element.js";

/// auto, light or dark, kept in this browser.
export function theme() {
  const button = document.getElementById("theme");
  const names = ["auto", "light", "dark"];
  let now = names.indexOf(kept() ?? "auto");
  const apply = () => {
    const name = names[now];
    mark(document.documentElement, "data-theme", name === "auto" ? null : name);
    say(button, `Theme: ${name}`);
    document.dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    now = (now + 1) % names.length;
    keep(names[now]);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themechange")));
  apply();
}

/// A browser may forbid to keep anything.
function kept() {
  try {
    return localStorage.getItem("kinglet-theme");
  } catch {
    return null;
  }
}

function keep(name) {
  try {
    localStorage.setItem("kinglet-theme", name);
  } catch {
    // Then it holds until the page is closed.
  }
}
