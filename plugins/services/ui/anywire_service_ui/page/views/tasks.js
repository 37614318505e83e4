// Tasks: those that have not ended, and the newest that have; one of them by its id.

import { fill, h, keyed, onFrame, say, set } from "../dom.js";
import { shortId, shownCount, shownMs } from "../format.js";
import { placeOf } from "../places.js";
import { mountTask } from "../task_page.js";

const MOST_ROWS = 200;
const PLACES = ["all", "waiting", "running", "ended", "failed"];

export function mount(element, api, [id]) {
  return id ? mountTask(element, api, id) : mountList(element, api);
}

function mountList(element, api) {
  const store = api.store;
  const text = h("input", { id: "text", type: "search", autocomplete: "off", oninput: () => drawing.ask() });
  const place = h(
    "select",
    { id: "place", onchange: () => drawing.ask() },
    PLACES.map((each) => h("option", null, each)),
  );
  const caption = h("caption");
  const rows = h("tbody");
  const heads = ["Task", "State", "Model", "Agent", "Tenant", "Priority", "Chunks", "Time"];
  fill(
    element,
    h("h1", null, "Tasks"),
    api.may("observe")
      ? null
      : h(
          "p",
          { class: "hint" },
          `Your own tasks: those of others are for the role observe; you have ${api.caller.role}.`,
        ),
    h(
      "div",
      { class: "row" },
      h("label", { for: "text" }, "Filter"),
      text,
      h("label", { for: "place" }, "Show"),
      place,
    ),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "Tasks" },
      h(
        "table",
        null,
        caption,
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            heads.map((each, at) => h("th", { scope: "col", class: at > 4 ? "number" : null }, each)),
          ),
        ),
        rows,
      ),
    ),
  );

  function draw() {
    const state = store.state;
    const words = text.value.toLowerCase();
    const matches = (task) =>
      isIn(task, place.value) &&
      (!words ||
        `${task.id} ${task.model} ${task.agent_id} ${task.tenant} ${task.error ?? ""}`.toLowerCase().includes(words));
    const live = [...state.tasks.values()].filter(matches).reverse();
    const found = [...live, ...[...state.ended.values()].filter(matches).reverse()];
    const left = found.length - MOST_ROWS + state.more;
    say(
      caption,
      `${shownCount(Math.min(found.length, MOST_ROWS), "task")}, the newest first${left > 0 ? `, and ${left} more: filter them` : ""}`,
    );
    const now = performance.now();
    keyed(
      rows,
      found.slice(0, MOST_ROWS),
      (each) => each.id,
      makeRow,
      (row, task) => drawRow(row, task, now),
    );
  }

  const drawing = onFrame(draw);
  const unsubscribe = store.subscribe(() => drawing.ask());
  const ticking = setInterval(() => drawing.ask(), 1000);
  draw();
  return () => {
    drawing.stop();
    unsubscribe();
    clearInterval(ticking);
  };
}

function isIn(task, place) {
  if (place === "waiting") return task.place === "queued" || task.place === "held";
  if (place === "failed") return Boolean(task.error);
  return place === "all" || task.place === place;
}

function makeRow(task) {
  return h(
    "tr",
    null,
    h(
      "th",
      { scope: "row" },
      h("a", { href: `#/tasks/${encodeURIComponent(task.id)}`, title: task.id }, shortId(task.id, 16)),
    ),
    h("td", null, h("span", { class: "badge" })),
    [0, 1, 2].map(() => h("td", { class: "words" })),
    [0, 1, 2].map(() => h("td", { class: "number" })),
  );
}

function drawRow(row, task, now) {
  const [, state, model, agent, tenant, priority, chunks, time] = row.children;
  const [word, mood] = placeOf(task);
  say(state.firstChild, word);
  set(state.firstChild, "data-mood", mood);
  set(state, "title", task.why || task.message || null);
  say(model, task.model);
  say(agent, task.agent_id || "–");
  say(tenant, task.tenant || "–");
  say(priority, task.priority);
  say(chunks, task.chunks);
  say(time, shownMs(task.place === "ended" ? task.took : now - task.begun));
}
