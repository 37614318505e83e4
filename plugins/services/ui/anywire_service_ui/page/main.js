// The frame: signs in, shows the navigation, opens the view that the address names, and says how the connection is.

import { Api } from "./api.js";
import { fill, h, say, set } from "./dom.js";
import { askForKey, useCode } from "./sign_in.js";
import { Store } from "./store.js";
import { startTheme } from "./theme.js";
import { VIEWS } from "./views.js";

const HIDDEN_MS = 10_000; // after which a hidden page asks for nothing more

const content = document.getElementById("content");
const nav = document.getElementById("nav");
const live = document.getElementById("live");
const who = document.getElementById("who");
const connection = document.getElementById("connection");
const newer = document.getElementById("newer");
const signOut = document.getElementById("sign-out");

const api = new Api();
api.store = new Store(api);
api.go = (path) => {
  location.hash = `#/${path}`;
};
api.announce = (text) => say(live, text);
api.fail = (error) => showFault(error.message);

let end = null; // ends the view that is open
let isIn = false;
let version = ""; // of the files that this tab has loaded

function showFault(message) {
  let box = document.getElementById("fault");
  if (!box) {
    box = h("p", { id: "fault", class: "fault banner", role: "alert" });
    content.prepend(box);
  }
  say(box, message);
}

function leave() {
  try {
    end?.();
  } catch (error) {
    console.error(error);
  }
  end = null;
}

function open() {
  if (!isIn) return;
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  const view = VIEWS.find((each) => each.name === name) ?? VIEWS.find((each) => api.may(each.role));
  leave();
  for (const link of nav.querySelectorAll("a")) {
    const isOpen = link.dataset.view === view.name;
    set(link, "aria-current", isOpen ? "page" : null);
    // On a narrow screen the navigation scrolls by itself.
    if (isOpen) nav.scrollLeft = link.offsetLeft - (nav.clientWidth - link.offsetWidth) / 2;
  }
  document.title = `${view.title} · Anywire`;
  const element = h("div", { class: `view view-${view.name}` });
  fill(content, element);
  if (!api.may(view.role)) {
    fill(element, h("h1", null, view.title), notAllowed(view.role));
    return;
  }
  try {
    end = view.mount(element, api, parts) ?? null;
  } catch (error) {
    console.error(error);
    showFault(`This view cannot be shown: ${error.message}`);
  }
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function notAllowed(role) {
  return h("p", { class: "hint" }, `This is for the role ${role}; you have ${api.caller.role}.`);
}

function showNav() {
  fill(
    nav,
    VIEWS.map((view) =>
      h(
        "a",
        {
          href: `#/${view.name}`,
          "data-view": view.name,
          class: api.may(view.role) ? null : "closed",
          title: api.may(view.role) ? null : `For the role ${view.role}`,
        },
        view.title,
        api.may(view.role) ? null : h("span", { class: "unseen" }, ` (for the role ${view.role})`),
      ),
    ),
  );
}

function showCaller() {
  const { id, tenant, role, needs_key: needsKey } = api.caller;
  say(who, [id, tenant && `tenant ${tenant}`, `role ${role}`].filter(Boolean).join(" · "));
  signOut.hidden = !needsKey || !api.key;
}

// Say when the server has other files than this tab: it was upgraded meanwhile.
async function compareVersions() {
  try {
    const { page } = await api.get("/v1/ui/parts");
    version ||= page;
    newer.hidden = page === version;
  } catch {
    // asked again with the next connection
  }
}

async function signIn(why) {
  isIn = false;
  leave();
  api.store.stop();
  fill(nav);
  say(who, "");
  say(connection, "");
  signOut.hidden = true;
  document.title = "Sign in · Anywire";
  let asked = false;
  try {
    await api.recognise();
  } catch (error) {
    if (error.status !== 401) {
      fill(content);
      showFault(`${error.message} Load this page again to try once more.`);
      return;
    }
    asked = true;
    await askForKey(content, api, why || (api.key ? error.message : ""));
  }
  isIn = true;
  showNav();
  showCaller();
  api.store.start();
  compareVersions();
  open();
  if (asked) content.focus({ preventScroll: true });
}

api.onSignedOut = (why) => {
  if (!isIn) return;
  api.key = "";
  signIn(why);
};
api.store.listen((event) => event.type === "page.behind" && compareVersions());
document.getElementById("reload").addEventListener("click", () => location.reload());
signOut.addEventListener("click", () => api.onSignedOut("You are signed out."));
window.addEventListener("hashchange", () => {
  // A sign-in link that is opened in this tab.
  if (location.hash.startsWith("#code=")) location.reload();
  else {
    open();
    content.focus({ preventScroll: true });
  }
});
// A browser has six connections to a server at most: a page that nobody sees keeps none of them.
let hidden = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.visibilityState === "hidden") hidden = setTimeout(() => api.store.pause(), HIDDEN_MS);
  else api.store.resume();
});
window.addEventListener("pagehide", () => {
  leave();
  api.store.stop();
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  content.focus();
});
api.store.onConnection = (state, why) => {
  set(connection, "data-state", state);
  say(connection, { live: "live", waiting: "connecting …", lost: `not connected: ${why}` }[state]);
};
startTheme(document.getElementById("theme"));
const fault = await useCode(api);
await signIn(fault);
