// Models: what the fleet offers, and at each agent with model processes their states, starts, stops and logs.

import { fill, h, keyed, say } from "../dom.js";
import { badge, calmly, choice, chooseFrom, field, showState, table } from "../form_parts.js";
import { shownCount } from "../format.js";
import { AgentModels } from "../agent_models.js";

const MAX_SHOWN = 1000; // models in the table
const MAX_AGENTS = 200; // agents that are named at one model

export function mount(element, api, parts) {
  const own = new Models(element, api, parts);
  return () => own.end();
}

class Models {
  constructor(element, api, [agent = ""]) {
    this.api = api;
    this.models = [];
    this.fault = h("p", { class: "fault", role: "alert" });
    this.summary = h("p", { class: "hint" }, "loading …");
    this.list = table("Models", ["Model", "State", "Answers", "#Context", "Features", "Agents", ""]);
    this.filter = h("input", {
      type: "search",
      name: "filter",
      placeholder: "part of a name",
      oninput: () => this.drawing.ask(),
    });
    this.agent = choice({ name: "agent" }, []);
    this.wanted = agent;
    this.panel = h("div", { class: "agent-models" });
    this.open = null; // the AgentModels that is shown
    this.drawing = calmly(() => this.draw(), 250);
    this.finding = calmly(() => this.find(), 500);
    fill(
      element,
      h("h1", null, "Models"),
      this.fault,
      h("div", { class: "row" }, field("Filter", this.filter), this.summary),
      this.list.element,
      h("h2", { id: "processes" }, "Model processes"),
      this.processes(),
    );
    this.unlisten = api.store.listen((event) => this.heard(event));
    this.unsubscribe = api.store.subscribe(() => this.drawing.ask());
    this.finding.ask();
    this.drawing.ask();
  }

  end() {
    this.finding.stop();
    this.drawing.stop();
    this.unlisten();
    this.unsubscribe();
    this.open?.end();
  }

  processes() {
    if (!this.api.may("operate")) {
      return h(
        "p",
        { class: "hint" },
        `To start and stop models, and to read their logs, needs the role operate; you have ${this.api.caller.role}.`,
      );
    }
    this.agent.addEventListener("change", () => this.choose(this.agent.value));
    const picked = field("Agent", this.agent, "Agents of the engine models run a process for each model.");
    return h("div", null, h("div", { class: "picked" }, picked), this.panel);
  }

  heard(event) {
    if (!/^(agent|offer|page)\./.test(event.type)) return;
    this.finding.ask();
    if (event.type === "page.behind") this.open?.refresh();
    if (event.type === "offer.changed" && event.agent_id === this.open?.agentId) this.open.refresh();
  }

  async find() {
    try {
      this.models = (await this.api.get("/v1/models")).data;
      say(this.fault, "");
    } catch (error) {
      say(this.fault, error.message);
    }
    this.drawing.ask();
  }

  // By model, the offers of the agents that have it. Nothing without the role observe.
  offers() {
    const found = new Map();
    for (const agent of this.api.store.state.agents.values()) {
      for (const offer of agent.offers ?? []) {
        if (!found.has(offer.model)) found.set(offer.model, []);
        found.get(offer.model).push({ agent, offer });
      }
    }
    return found;
  }

  draw() {
    const wanted = this.filter.value.trim().toLowerCase();
    const fits = this.models.filter((each) => each.id.toLowerCase().includes(wanted));
    const offers = this.offers();
    keyed(
      this.list.body,
      fits.slice(0, MAX_SHOWN),
      (model) => model.id,
      () => row(),
      (element, model) => show(element, model, offers.get(model.id) ?? []),
    );
    const hidden = fits.length - Math.min(fits.length, MAX_SHOWN);
    const more = hidden ? `, ${hidden} of them not shown: filter by name` : "";
    say(this.summary, this.models.length ? shownCount(fits.length, "model") + more : "No agent offers a model.");
    this.drawAgents();
  }

  drawAgents() {
    if (!this.api.may("operate")) return;
    const agents = [...this.api.store.state.agents.values()];
    const options = agents.map((each) => [each.id, `${each.id} (${each.engine}, ${each.transport})`]);
    chooseFrom(this.agent, [["", "choose an agent"], ...options]);
    const first = this.wanted || agents.find((each) => each.engine === "models")?.id || "";
    if (!this.open && first && agents.some((each) => each.id === first)) {
      this.agent.value = first;
      this.choose(first);
    }
  }

  choose(agentId) {
    this.open?.end();
    this.open = agentId ? new AgentModels(this.panel, this.api, agentId) : null;
    if (!agentId) fill(this.panel);
  }
}

function row() {
  const cells = {
    name: h("th", { scope: "row", class: "words" }),
    state: badge(),
    kinds: h("td"),
    context: h("td", { class: "number" }),
    features: h("td", { class: "words" }),
    agents: h("summary"),
    where: h("ul", { class: "plain" }),
    ask: h("td"),
  };
  cells.details = h("details", { hidden: true }, cells.agents, cells.where);
  cells.none = h("span");
  const element = h(
    "tr",
    null,
    cells.name,
    h("td", null, cells.state),
    cells.kinds,
    cells.context,
    cells.features,
    h("td", { class: "words" }, cells.none, cells.details),
    cells.ask,
  );
  element.parts = cells;
  return element;
}

function show(element, model, offered) {
  const cells = element.parts;
  say(cells.name, model.id);
  showState(
    cells.state,
    model.state ?? "",
    model.on_demand && model.state === "stopped" ? "stopped, starts on demand" : (model.state ?? ""),
  );
  say(cells.kinds, (model.kinds ?? []).join(", "));
  say(cells.context, model.context_length ? model.context_length.toLocaleString("en") : "–");
  say(cells.features, featureText(model.features ?? {}));
  const known = offered.length > 0;
  cells.details.hidden = !known;
  say(cells.none, known ? "" : model.agents ? shownCount(model.agents, "agent") : "a service");
  if (known) {
    say(cells.agents, shownCount(offered.length, "agent"));
    keyed(
      cells.where,
      offered.slice(0, MAX_AGENTS),
      ({ agent }) => agent.id,
      () => h("li"),
      placed,
    );
  }
  if (!cells.ask.firstChild && (model.kinds ?? ["chat"]).includes("chat")) {
    const name = encodeURIComponent(model.id);
    fill(cells.ask, h("a", { href: `#/playground/${name}`, "aria-label": `Ask ${model.id}` }, "Ask"));
  }
}

function placed(element, { agent, offer }) {
  const detail = offer.detail ? `: ${offer.detail}` : "";
  const slots = offer.slots ? `, ${shownCount(offer.slots, "slot")}` : "";
  say(element, `${agent.id} over ${agent.transport}: ${offer.state ?? "ready"}${detail}${slots}`);
}

function featureText(features) {
  const known = Object.entries(features);
  const has = known.filter(([, value]) => value).map(([name]) => name);
  const lacks = known.filter(([, value]) => !value).map(([name]) => `no ${name}`);
  return [...has, ...lacks].join(", ") || "–";
}
