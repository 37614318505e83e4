// The fleet: figures, a picture, what is not well, and all agents in a table; one agent beside it.

import { AgentPanel } from "../agent_panel.js";
import { fill, h, keyed, onFrame, say, set } from "../dom.js";
import { figuresOf } from "../figures.js";
import { shownCount, shownRate } from "../format.js";
import { conditionOf, reasonOf, usedSlots } from "../health.js";
import { Picture, linkSample } from "../picture.js";

const BELOW_MS = 15_000; // between two looks at what is below child orchestrators
const MOST_ROWS = 500;
const ORCHESTRATOR = "orchestrator";

export function mount(element, api, [selected = ""]) {
  const store = api.store;
  const below = new Map();
  let filter = "";

  const figures = figuresOf(["Agents", "Slots in use", "Running", "Waiting", "Tasks / s", "Tokens / s", "Failed"]);
  const picture = new Picture((id) => api.go(`fleet/${encodeURIComponent(id)}`));
  const legend = h("ul", { class: "legend", "aria-label": "Transports of links" });
  const panel = new AgentPanel(api, selected);
  const unwell = h(
    "section",
    { class: "card", "aria-labelledby": "unwell", hidden: true },
    h("h2", { id: "unwell" }, "Not well"),
  );
  const unwellList = h("ul", { class: "plain" });
  unwell.append(unwellList);
  const field = h("input", {
    id: "filter",
    type: "search",
    autocomplete: "off",
    oninput: () => {
      filter = field.value.toLowerCase();
      drawing.ask();
    },
  });
  const rows = h("tbody");
  const caption = h("caption", null, "");
  fill(
    element,
    h("h1", null, "Fleet"),
    figures.element,
    h(
      "div",
      { class: selected ? "columns" : null },
      h("section", { class: "card", "aria-label": "Picture of the fleet" }, picture.element, legend),
      selected ? panel.element : null,
    ),
    unwell,
    h(
      "section",
      { "aria-labelledby": "agents" },
      h("h2", { id: "agents" }, "Agents"),
      h("div", { class: "row" }, h("label", { for: "filter" }, "Filter"), field),
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "agents" },
        h("table", null, caption, headOf(), rows),
      ),
    ),
  );

  function draw() {
    const state = store.state;
    const agents = [...state.agents.values()];
    const tasks = [...state.tasks.values()];
    const running = tasks.filter((each) => each.place === "running").length;
    const rates = state.rates();
    const used = agents.reduce((sum, each) => sum + Math.min(usedSlots(each), each.slots), 0);
    const slots = agents.reduce((sum, each) => sum + each.slots, 0);
    figures.say([
      agents.length,
      `${used} / ${slots}`,
      running,
      tasks.length - running + state.more,
      shownRate(rates.tasks),
      shownRate(rates.tokens),
      `${(100 * rates.failed).toFixed(rates.failed && rates.failed < 0.1 ? 1 : 0)} %`,
    ]);
    picture.draw(state, below, selected);
    const all = [...agents, ...state.lost.values()];
    drawLegend(legend, all);
    drawUnwell(unwell, unwellList, all);
    drawRows(rows, caption, all, filter);
    panel.draw(state.agents.get(selected) ?? state.lost.get(selected), below.get(selected));
  }

  const drawing = onFrame(draw);
  const unsubscribe = store.subscribe(() => drawing.ask());
  const abort = new AbortController();
  const looking = setInterval(() => lookBelow(api, below, abort.signal, drawing), BELOW_MS);
  const unhear = store.listen((event) => {
    if (event.type === "agent.lost") api.announce(`Agent ${event.agent_id} is lost.`);
    if (event.type === "agent.joined" && event.info?.engine === ORCHESTRATOR)
      setTimeout(() => lookBelow(api, below, abort.signal, drawing), 500);
  });
  lookBelow(api, below, abort.signal, drawing);
  const resized = new ResizeObserver(() => drawing.ask());
  resized.observe(picture.element);
  draw();
  return () => {
    drawing.stop();
    unsubscribe();
    unhear();
    abort.abort();
    clearInterval(looking);
    resized.disconnect();
  };
}

// Ask child orchestrators for their agents: a command, which operators alone may send.
async function lookBelow(api, below, signal, drawing) {
  if (!api.may("operate") || document.visibilityState !== "visible") return;
  for (const agent of api.store.state.agents.values()) {
    if (agent.engine !== ORCHESTRATOR) continue;
    try {
      const answer = await api.request(`/v1/agents/${encodeURIComponent(agent.id)}/commands/agents?deadline=5`, {
        method: "POST",
        body: {},
        signal,
      });
      const lines = (await answer.text())
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line));
      below.set(
        agent.id,
        lines.filter((each) => each.id),
      );
    } catch {
      below.delete(agent.id); // it is gone, or does not tell
    }
  }
  drawing.ask();
}

function drawLegend(legend, agents) {
  const counts = new Map();
  for (const each of agents) if (each.transport) counts.set(each.transport, (counts.get(each.transport) ?? 0) + 1);
  keyed(
    legend,
    [...counts].sort(),
    (each) => each[0],
    ([name]) => h("li", null, linkSample(name), h("span")),
    (item, [name, count]) => say(item.lastChild, `${name}: ${shownCount(count, "agent")}`),
  );
}

function drawUnwell(section, list, agents) {
  const found = agents.filter((each) => conditionOf(each).unwell).slice(0, 20);
  section.hidden = !found.length;
  keyed(
    list,
    found,
    (each) => each.id,
    (each) => h("li", null, link(each.id), " ", h("span", { class: "badge" }), " ", h("span", { class: "hint" })),
    (item, each) => {
      const { word, mood } = conditionOf(each);
      const [, badge, reason] = item.children;
      say(badge, word);
      set(badge, "data-mood", mood);
      say(reason, reasonOf(each));
    },
  );
}

function link(id) {
  return h("a", { href: `#/fleet/${encodeURIComponent(id)}` }, id);
}

function headOf() {
  const heads = [
    "Agent",
    "State",
    "Slots",
    "Chunks / s",
    "Answered",
    "Failed",
    "First token",
    "Transport",
    "Host",
    "Models",
  ];
  return h(
    "thead",
    null,
    h(
      "tr",
      null,
      heads.map((each, at) => h("th", { scope: "col", class: at > 1 && at < 7 ? "number" : null }, each)),
    ),
  );
}

function drawRows(body, caption, agents, filter) {
  const found = agents.filter(
    (each) =>
      !filter || `${each.id} ${each.host} ${each.transport} ${each.models?.join(" ")}`.toLowerCase().includes(filter),
  );
  found.sort((one, other) => one.id.localeCompare(other.id, "en", { numeric: true }));
  const left = found.length - MOST_ROWS;
  say(
    caption,
    `${shownCount(Math.min(found.length, MOST_ROWS), "agent")}${left > 0 ? `, and ${left} more: filter them` : ""}`,
  );
  keyed(body, found.slice(0, MOST_ROWS), (each) => each.id, makeRow, drawRow);
}

function makeRow(agent) {
  const cells = [0, 1, 2, 3, 4].map(() => h("td", { class: "number" }));
  return h(
    "tr",
    null,
    h("th", { scope: "row", class: "words" }, link(agent.id)),
    h("td", null, h("span", { class: "badge" })),
    cells,
    h("td"),
    h("td", { class: "words" }),
    h("td", { class: "words" }),
  );
}

function drawRow(row, agent) {
  const { word, mood } = conditionOf(agent);
  const [, state, slots, rate, answered, failed, first, transport, host, models] = row.children;
  say(state.firstChild, word);
  set(state.firstChild, "data-mood", mood);
  say(slots, `${usedSlots(agent)} / ${agent.slots}`);
  say(rate, shownRate(agent.rate));
  say(answered, agent.completed);
  say(failed, agent.failed);
  say(first, agent.latency_ms ? `${agent.latency_ms.toFixed(0)} ms` : "–");
  say(transport, agent.transport);
  say(host, agent.host);
  const names = agent.models ?? [];
  say(models, names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : ""));
}
