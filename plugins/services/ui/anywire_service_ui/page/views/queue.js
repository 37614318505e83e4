// The queue: what waits and runs, by class and by tenant; for what tasks are held; and where time goes.

import { fill, h, keyed, onFrame, say } from "../dom.js";
import { figuresOf } from "../figures.js";
import { shownCount, shownMs } from "../format.js";
import { drawSpan, spansOf, STAGES } from "../waterfall.js";

const MOST_ROWS = 50;

export function mount(element, api) {
  const store = api.store;
  const figures = figuresOf(["Queued", "Held", "Running", "Oldest waits", "Refused"]);
  const classes = tableOf("By class", ["Priority", "", "Queued", "Held", "Running", "Oldest waits"]);
  const tenants = tableOf("By tenant", ["Tenant", "", "Queued", "Held", "Running", "Oldest waits"]);
  const models = tableOf("By model", ["Model", "", "Queued", "Held", "Running", "Oldest waits"]);
  const held = tableOf("Held, and for what", ["Why", "", "Tasks"]);
  const stages = tableOf("Where time went, of the newest tasks that have ended", [
    "Stage",
    "",
    "Median",
    "95th percentile",
  ]);
  const note = h("p", { class: "hint" });
  fill(
    element,
    h("h1", null, "Queue"),
    api.may("observe")
      ? null
      : h(
          "p",
          { class: "hint" },
          `Your own tasks: those of others are for the role observe; you have ${api.caller.role}.`,
        ),
    figures.element,
    note,
    classes.element,
    tenants.element,
    models.element,
    held.element,
    stages.element,
  );

  function draw() {
    const state = store.state;
    const now = performance.now();
    const tasks = [...state.tasks.values()];
    const count = (place) => tasks.filter((each) => each.place === place).length;
    const oldest = oldestOf(tasks, now);
    const refused = Object.values(state.stats?.admission?.refused ?? {}).reduce((sum, each) => sum + each, 0);
    figures.say([
      count("queued"),
      count("held"),
      count("running"),
      oldest === null ? "–" : shownMs(oldest),
      state.stats ? refused : "–",
    ]);
    say(note, state.more ? `and ${shownCount(state.more, "task")} more, which are counted nowhere here` : "");
    drawGroups(
      classes.body,
      tasks,
      (each) => each.priority,
      now,
      (one, other) => other - one,
    );
    drawGroups(tenants.body, tasks, (each) => each.tenant || "(none)", now);
    drawGroups(models.body, tasks, (each) => each.model, now);
    drawHeld(held, tasks);
    drawStages(stages.body, [...state.ended.values()]);
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

function tableOf(caption, heads) {
  const body = h("tbody");
  const head = h(
    "tr",
    null,
    heads.map((each, at) => (each ? h("th", { scope: "col", class: at > 1 ? "number" : null }, each) : h("td"))),
  );
  const element = h(
    "div",
    { class: "scroll card", tabindex: 0, role: "region", "aria-label": caption },
    h("table", null, h("caption", null, caption), h("thead", null, head), body),
  );
  return { element, body };
}

function oldestOf(tasks, now) {
  const waiting = tasks.filter((each) => each.place !== "running");
  return waiting.length ? Math.max(...waiting.map((each) => now - each.begun)) : null;
}

function drawGroups(body, tasks, nameOf, now, compare) {
  const groups = new Map();
  for (const task of tasks) {
    const name = nameOf(task);
    const group = groups.get(name) ?? { name, tasks: [], queued: 0, held: 0, running: 0 };
    group.tasks.push(task);
    group[task.place] += 1;
    groups.set(name, group);
  }
  const sorted = [...groups.values()].sort((one, other) =>
    compare ? compare(one.name, other.name) : other.tasks.length - one.tasks.length,
  );
  const most = Math.max(1, ...sorted.map((each) => each.tasks.length));
  keyed(
    body,
    sorted.slice(0, MOST_ROWS),
    (each) => String(each.name),
    makeRow,
    (row, group) => {
      const [name, bar, queued, held, running, oldest] = row.children;
      say(name, group.name);
      let left = 0;
      ["running", "held", "queued"].forEach((place, at) => {
        const part = bar.firstChild.children[at];
        const share = (100 * group[place]) / most;
        part.style.left = `${left}%`;
        part.style.width = `${share}%`;
        part.hidden = !group[place];
        left += share;
      });
      say(queued, group.queued);
      say(held, group.held);
      say(running, group.running);
      const waits = oldestOf(group.tasks, now);
      say(oldest, waits === null ? "–" : shownMs(waits));
    },
  );
}

function makeRow() {
  const bar = h(
    "span",
    { class: "bar", "aria-hidden": "true" },
    h("i", { class: "running" }),
    h("i", { class: "held" }),
    h("i"),
  );
  return h(
    "tr",
    null,
    h("th", { scope: "row", class: "words" }),
    h("td", null, bar),
    [0, 1, 2, 3].map(() => h("td", { class: "number" })),
  );
}

function drawHeld(table, tasks) {
  const counts = new Map();
  for (const each of tasks) if (each.place === "held") counts.set(each.why, (counts.get(each.why) ?? 0) + 1);
  table.element.hidden = !counts.size;
  const sorted = [...counts].sort((one, other) => other[1] - one[1]).slice(0, MOST_ROWS);
  keyed(
    table.body,
    sorted,
    (each) => each[0],
    () => h("tr", null, h("th", { scope: "row", class: "words" }), h("td"), h("td", { class: "number" })),
    (row, [why, count]) => {
      say(row.children[0], why);
      say(row.children[2], count);
    },
  );
}

// The median and the 95th percentile of each stage.
function drawStages(body, ended) {
  const times = new Map(STAGES.map(({ name }) => [name, []]));
  for (const task of ended) for (const span of spansOf(task)) times.get(span.name)?.push(span.ms);
  const rows = STAGES.map((stage) => ({
    ...stage,
    times: times.get(stage.name).sort((one, other) => one - other),
  })).filter((each) => each.times.length);
  const at = (each, share) => each.times[Math.min(each.times.length - 1, Math.floor(share * each.times.length))];
  const whole = Math.max(0.001, ...rows.map((each) => at(each, 0.95)));
  keyed(
    body,
    rows,
    (each) => each.name,
    () =>
      h(
        "tr",
        null,
        h("th", { scope: "row" }),
        h("td", null, h("span", { class: "bar", "aria-hidden": "true" }, h("i"))),
        h("td", { class: "number" }),
        h("td", { class: "number" }),
      ),
    (row, each) => {
      say(row.children[0], each.title);
      drawSpan(row.children[1].firstChild.firstChild, each.part, 0, at(each, 0.5), whole);
      say(row.children[2], shownMs(at(each, 0.5)));
      say(row.children[3], shownMs(at(each, 0.95)));
    },
  );
}
