// Where a task's time went: spans between the stages that it has reached, one under the other.

import { h, keyed, say, set } from "./dom.js";
import { shownMs } from "./format.js";

// Each span by the stage that ends it, and the part that it belongs to.
export const STAGES = [
  { name: "admitted", title: "Taken in", part: "pipeline" },
  { name: "selected", title: "Waited in the queue", part: "queue" },
  { name: "sent", title: "Given to the transport", part: "pipeline" },
  { name: "agent_received", title: "Wire to the agent", part: "wire" },
  { name: "engine_started", title: "Waited at the agent", part: "queue" },
  { name: "first_chunk", title: "Engine: first token", part: "engine" },
  { name: "last_chunk", title: "Engine: further tokens", part: "engine" },
  { name: "delivered", title: "Wire back", part: "wire" },
];
const ORDER = ["received", ...STAGES.map((each) => each.name)];
const BY_NAME = new Map(STAGES.map((each) => [each.name, each]));

// The spans of a task in their order, `{name, title, part, from, ms}` in milliseconds; from its stages as the event of
// its end has them, or from the times between stages as the API tells them.
export function spansOf(task) {
  return task.stages ? ofStages(task.stages) : ofTimes(task.stages_ms ?? {});
}

function ofStages(stages) {
  const spans = [];
  let at = 0;
  let before = "";
  for (const name of ORDER) {
    if (!stages[name]) continue;
    const crosses = before === "sent" || (before && name === "delivered");
    if (before && (stages.comparable !== false || !crosses)) {
      const ms = (stages[name] - stages[before]) / 1e6;
      spans.push({ ...BY_NAME.get(name), from: at, ms });
      at += ms;
    }
    before = name;
  }
  return spans;
}

function ofTimes(times) {
  const spans = [];
  let at = 0;
  for (const name of ORDER) {
    const found = Object.entries(times).find(([each]) => each.endsWith(`-${name}`));
    if (!found) continue;
    spans.push({ ...BY_NAME.get(name), from: at, ms: found[1] });
    at += found[1];
  }
  return spans;
}

// Draw a bar from `from` for `ms` milliseconds of `whole`.
export function drawSpan(bar, part, from, ms, whole) {
  set(bar, "class", part);
  bar.style.left = `min(${(100 * from) / whole}%, calc(100% - 2px))`;
  bar.style.width = `${Math.max(0, (100 * ms) / whole)}%`;
}

export class Waterfall {
  #body = h("tbody");
  #caption = h("caption");

  constructor() {
    this.element = h(
      "table",
      { class: "waterfall" },
      this.#caption,
      h(
        "thead",
        null,
        h("tr", null, h("th", { scope: "col" }, "Stage"), h("td"), h("th", { scope: "col", class: "number" }, "Time")),
      ),
      this.#body,
    );
  }

  draw(spans) {
    const whole = Math.max(0.001, ...spans.map((each) => each.from + each.ms));
    say(this.#caption, spans.length ? `${shownMs(whole)} from its receipt` : "No stage is known yet.");
    keyed(
      this.#body,
      spans,
      (each) => each.name,
      () =>
        h(
          "tr",
          null,
          h("th", { scope: "row" }),
          h("td", null, h("span", { class: "bar", "aria-hidden": "true" }, h("i"))),
          h("td", { class: "number" }),
        ),
      (row, each) => {
        say(row.children[0], each.title);
        drawSpan(row.children[1].firstChild.firstChild, each.part, each.from, each.ms, whole);
        say(row.children[2], shownMs(each.ms));
      },
    );
  }
}
