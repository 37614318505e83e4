// One agent: what it is and offers, how it does, and what an operator may order of it.

import { fill, h, keyed, say, set } from "./dom.js";
import { shownBytes, shownRate } from "./format.js";
import { conditionOf, reasonOf, usedSlots } from "./health.js";

const ORDERS = [
  ["drain", "Drain", "Send it no further task; what runs there ends there."],
  ["isolate", "Isolate", "Send it no further task, and move what runs there to other agents."],
  ["restore", "Restore", "End what was ordered; an agent in quarantine is tried at once."],
];

export class AgentPanel {
  #api;
  #id;
  #facts = h("dl", { class: "facts" });
  #badge = h("span", { class: "badge" });
  #reason = h("p", { class: "hint" });
  #offers = h("tbody");
  #below = h("p", { class: "hint" });
  #buttons = new Map();
  #field = h("input", { id: "order-reason", autocomplete: "off", maxlength: 200 });
  #told = h("p", { role: "status", class: "hint" });
  #asking = false;

  constructor(api, id) {
    this.#api = api;
    this.#id = id;
    const may = api.may("operate");
    const orders = ORDERS.map(([name, title, what]) => {
      const button = h(
        "button",
        { type: "button", title: what, disabled: !may, onclick: () => this.#order(name) },
        title,
      );
      this.#buttons.set(name, button);
      return button;
    });
    this.element = h(
      "section",
      { class: "card", "aria-labelledby": "agent-title" },
      h("div", { class: "row between" }, h("h2", { id: "agent-title" }, id), h("a", { href: "#/fleet" }, "Close")),
      h("p", null, this.#badge),
      this.#reason,
      this.#facts,
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Models of this agent" },
        h(
          "table",
          null,
          h("caption", null, "Models"),
          h(
            "thead",
            null,
            h(
              "tr",
              null,
              ["Model", "State", "Context"].map((each) => h("th", { scope: "col" }, each)),
            ),
          ),
          this.#offers,
        ),
      ),
      this.#below,
      may ? [h("label", { for: "order-reason" }, "Reason (others see it)"), this.#field] : null,
      h("div", { class: "row" }, orders),
      may
        ? null
        : h(
            "p",
            { class: "hint" },
            `Drain, isolate and restore are for the role operate; you have ${api.caller.role}.`,
          ),
      this.#told,
    );
  }

  draw(agent, below) {
    if (!agent) {
      say(this.#badge, "not there");
      set(this.#badge, "data-mood", null);
      fill(this.#facts);
      for (const button of this.#buttons.values()) button.disabled = true;
      return;
    }
    const { word, mood } = conditionOf(agent);
    say(this.#badge, word);
    set(this.#badge, "data-mood", mood);
    say(this.#reason, reasonOf(agent));
    const facts = factsOf(agent);
    keyed(
      this.#facts,
      facts.flatMap(([name, value]) => [
        [`${name}:`, name, "dt"],
        [name, value, "dd"],
      ]),
      (each) => each[0],
      (each) => h(each[2]),
      (part, each) => say(part, each[1]),
    );
    keyed(
      this.#offers,
      agent.offers ?? [],
      (each) => each.model,
      () => h("tr", null, h("th", { scope: "row", class: "words" }), h("td", { class: "words" }), h("td")),
      (row, offer) => {
        const [model, state, context] = row.children;
        say(model, offer.model);
        say(state, `${offer.state ?? "ready"}${offer.detail ? `: ${offer.detail}` : ""}`);
        say(context, offer.context || "–");
      },
    );
    say(this.#below, below ? `An orchestrator with ${below.length} agents of its own.` : "");
    const ordered = agent.health?.order ?? "";
    const may = this.#api.may("operate") && !this.#asking && agent.state !== "lost";
    this.#buttons.get("drain").disabled = !may || ordered === "drained";
    this.#buttons.get("isolate").disabled = !may || ordered === "isolated";
    this.#buttons.get("restore").disabled = !may || (!ordered && agent.health?.state !== "quarantined");
  }

  async #order(name) {
    this.#asking = true;
    say(this.#told, "");
    try {
      await this.#api.post(`/v1/agents/${encodeURIComponent(this.#id)}/${name}`, { reason: this.#field.value });
      say(
        this.#told,
        {
          drain: "It gets no further task.",
          isolate: "It gets no further task, and what ran there goes on elsewhere.",
          restore: "It gets tasks again.",
        }[name],
      );
      this.#field.value = "";
    } catch (error) {
      say(this.#told, error.message);
    } finally {
      this.#asking = false;
      this.#api.store.refresh();
    }
  }
}

function factsOf(agent) {
  const facts = [
    ["Engine", agent.engine],
    ["Transport", agent.transport],
    ["Host", agent.pid ? `${agent.host}, process ${agent.pid}` : agent.host],
    ["Slots", `${usedSlots(agent)} of ${agent.slots} in use, ${agent.load?.queued ?? 0} tasks wait there`],
    ["Rate", `${shownRate(agent.rate)} chunks a second`],
    ["Tasks", `${agent.completed} answered, ${agent.failed} failed`],
    ["First token", agent.latency_ms ? `${agent.latency_ms.toFixed(0)} ms after it was sent` : "–"],
    ["Kinds", (agent.capabilities ?? []).join(", ")],
  ];
  if (agent.device) facts.push(["Device", agent.device]);
  if (agent.specialization) facts.push(["Specialization", agent.specialization]);
  for (const [name, value] of Object.entries(agent.resources ?? {}).slice(0, 12))
    facts.push([name, gauge(name, value)]);
  return facts;
}

function gauge(name, value) {
  if (!Number.isFinite(value)) return "–"; // what is no number came from an agent
  if (name.endsWith("_bytes")) return shownBytes(value);
  if (name.endsWith("_percent")) return `${value.toFixed(0)} %`;
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}
