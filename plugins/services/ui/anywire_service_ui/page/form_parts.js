// Parts of forms and tables that several views have: fields with their labels, text to be copied, numbers and times.

import { fill, h, say, set } from "./dom.js";

let made = 0;

// A control with its label above it, and a sentence below it where one is given.
export function field(label, control, hint = "") {
  control.id ||= `field-${++made}`;
  const note = hint ? h("span", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, note);
}

// A checkbox with its label behind it.
export function check(label, attributes) {
  const box = h("input", { type: "checkbox", id: `field-${++made}`, ...attributes });
  return { box, element: h("div", { class: "field check" }, box, h("label", { for: box.id }, label)) };
}

// A select of `[value, text]`, or of `{group, options}` with such a list.
export function choice(attributes, options) {
  return chooseFrom(h("select", attributes), options);
}

// Put `options` into a select in place of what is there; what was chosen stays where it still can be. A select whose
// options are the same is left alone: one that is open would close.
export function chooseFrom(select, options) {
  const told = JSON.stringify(options);
  if (select.offered === told) return select;
  select.offered = told;
  const chosen = select.value;
  const option = ([value, text]) => h("option", { value }, text);
  fill(
    select,
    options.map((each) =>
      Array.isArray(each) ? option(each) : h("optgroup", { label: each.group }, each.options.map(option)),
    ),
  );
  if ([...select.options].some((each) => each.value === chosen)) select.value = chosen;
  return select;
}

// Text in a box, with a button that copies it. Without a clipboard (on plain HTTP of another machine) the text is
// selected. `take(text)` puts another text into it.
export function copyBox(title, text = "") {
  const body = h("code", null, text);
  const button = h("button", { type: "button", class: "quiet", "aria-label": `Copy: ${title}` }, "Copy");
  const box = h("pre", { class: "copied", tabindex: "0", role: "region", "aria-label": title }, body);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(body.textContent);
      say(button, "Copied");
    } catch {
      getSelection().selectAllChildren(body);
      say(button, "Selected: press Ctrl-C");
    }
    setTimeout(() => say(button, "Copy"), 2000);
  });
  const element = h("div", { class: "copy-box" }, box, button);
  return { element, take: (newest) => say(body, newest) };
}

// A table whose head is `columns` (one of numbers begins with #); rows are put into its body. It scrolls by itself where the page is narrow.
export function table(title, columns) {
  const body = h("tbody");
  const heads = h("thead", null, h("tr", null, columns.map(head)));
  const element = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    h("table", null, h("caption", { class: "unseen" }, title), heads, body),
  );
  return { element, body };
}

function head(column) {
  const isNumber = column.startsWith("#");
  return h("th", { scope: "col", class: isNumber ? "number" : null }, isNumber ? column.slice(1) : column);
}

// A word for a state; its colour helps.
const MOODS = new Map([
  ...named("good", "ready running completed active proposed"),
  ...named("busy", "starting stopping submitted generating critiquing revising scoring waiting"),
  ...named("warn", "degraded expired timed_out"),
  ...named("bad", "crashed failed missing revoked"),
]);

function named(mood, states) {
  return states.split(" ").map((each) => [each, mood]);
}

export function badge(state = "", text = state) {
  const element = h("span", { class: "badge" });
  showState(element, state, text);
  return element;
}

export function showState(element, state, text = state) {
  set(element, "data-mood", MOODS.get(state) ?? null);
  say(element, text);
}

// A button that does `work`, and nothing more while that goes on; it keeps the focus. What goes wrong is given to `fail`.
export function actionButton(text, work, fail, attributes = {}) {
  const button = h("button", { type: "button", ...attributes }, text);
  button.addEventListener("click", async () => {
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true";
    try {
      await work(button);
    } catch (error) {
      if (error.name !== "AbortError") fail(error);
    } finally {
      button.ariaDisabled = null;
    }
  });
  return button;
}

// Run `work` soon after it was asked for, at most once in `pause` milliseconds, and never twice at a time.
export function calmly(work, pause) {
  let timer = 0;
  let runs = false;
  let again = false;
  let stopped = false;
  let last = -Infinity;
  const run = async () => {
    timer = 0;
    runs = true;
    last = performance.now();
    try {
      await work();
    } finally {
      runs = false;
      if (again) {
        again = false;
        ask();
      }
    }
  };
  const ask = () => {
    if (stopped || timer) return;
    if (runs) {
      again = true;
      return;
    }
    timer = setTimeout(run, Math.max(0, last + pause - performance.now()));
  };
  return {
    ask,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

// A time given in seconds since 1970; empty for 0.
export function moment(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleString() : "";
}
