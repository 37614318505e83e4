// Light or dark: as the system has it until somebody chooses; the choice is kept in this browser.

const KEY = "anywire-theme";
const ORDER = ["system", "light", "dark"];
const TITLES = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

export function startTheme(button) {
  let chosen = read();
  const show = () => {
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.textContent = TITLES[chosen];
  };
  button.addEventListener("click", () => {
    chosen = ORDER[(ORDER.indexOf(chosen) + 1) % ORDER.length];
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      // kept nowhere: it holds until the page is loaded again
    }
    show();
  });
  show();
}

function read() {
  try {
    const kept = localStorage.getItem(KEY);
    return ORDER.includes(kept) ? kept : "system";
  } catch {
    return "system";
  }
}
