// Signing in: with a code in the address, which counts once, or with a key that is typed.

import { h, fill } from "./dom.js";

// Take the code out of the address and use it. Returns what went wrong, empty when nothing did.
export async function useCode(api) {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (!code) return "";
  history.replaceState(null, "", location.pathname);
  try {
    api.key = "";
    api.key = (await api.post("/ui/sign-in", { code })).key;
    return "";
  } catch (error) {
    return error.message;
  }
}

// Show the form until a key is let in.
export function askForKey(element, api, why) {
  return new Promise((signedIn) => {
    const field = h("input", {
      id: "key",
      type: "password",
      name: "key",
      autocomplete: "current-password",
      required: true,
      spellcheck: "false",
      "aria-describedby": "key-fault",
    });
    const fault = h("p", { id: "key-fault", class: "fault", role: "alert" }, why);
    const button = h("button", { type: "submit", class: "primary" }, "Sign in");
    const send = async (event) => {
      event.preventDefault();
      button.disabled = true;
      api.key = field.value.trim();
      try {
        await api.recognise();
        signedIn();
      } catch (error) {
        api.key = "";
        fault.textContent = error.message;
        field.select();
        field.focus();
      } finally {
        button.disabled = false;
      }
    };
    fill(
      element,
      h(
        "form",
        { class: "card narrow", onsubmit: send },
        h("h1", null, "Sign in"),
        h("p", null, "A key is needed here. ", h("code", null, "anywire ui"), " opens this page with yours."),
        h("label", { for: "key" }, "API key"),
        field,
        fault,
        h("div", { class: "row" }, button),
        h("p", { class: "hint" }, "The key is kept in this tab until it is closed."),
      ),
    );
    field.focus();
  });
}
