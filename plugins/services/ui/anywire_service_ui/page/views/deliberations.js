// Deliberations: a question to several agents, the list of those that are kept, and each with all that led to its answer.

import { fill, h, keyed, say, set } from "../dom.js";
import { DeliberationPage } from "../deliberation.js";
import { badge, calmly, check, choice, chooseFrom, field, moment, showState, table } from "../form_parts.js";
import { shownCount } from "../format.js";

const MOST = 200; // that are listed
const MISSING =
  "The service deliberation does not run here. Install anywire-service-deliberation, and add deliberation to services in the configuration.";

export function mount(element, api, parts) {
  const own = parts[0] ? new DeliberationPage(element, api, parts[0]) : new Deliberations(element, api);
  return () => own.end();
}

class Deliberations {
  constructor(element, api) {
    this.api = api;
    this.fault = h("p", { class: "fault", role: "alert" });
    this.summary = h("p", { class: "hint" }, "loading …");
    this.list = table("Deliberations", ["Question", "Status", "Members", "Progress", "Winner", "Asked at"]);
    this.reading = calmly(() => this.read(), 1500);
    this.form = new AskForm(api, this.fault);
    fill(
      element,
      h("h1", null, "Deliberations"),
      h(
        "p",
        null,
        "Several members answer one question, criticise and improve their answers, and score those of the others.",
      ),
      this.fault,
      this.form.element,
      h("h2", null, "Asked before"),
      this.summary,
      this.list.element,
    );
    this.unlisten = api.store.listen((event) => {
      if (event.type === "page.behind") this.services = null; // it may be another server
      if (event.type === "page.behind" || (/^task\./.test(event.type) && event.session)) this.reading.ask();
    });
    this.reading.ask();
  }

  end() {
    this.reading.stop();
    this.unlisten();
  }

  async read() {
    try {
      this.services ??= (await this.api.get("/v1/ui/parts")).services;
      const runs = this.services.includes("deliberation");
      this.form.element.hidden = !runs;
      if (!runs) {
        say(this.summary, MISSING);
        return;
      }
      this.form.offer();
      const found = (await this.api.get(`/v1/deliberations?limit=${MOST}`)).data;
      say(this.summary, found.length ? "" : "None is kept.");
      this.list.element.hidden = !found.length;
      keyed(this.list.body, found, (each) => each.id, row, update);
      if (this.fault.textContent === this.failed) say(this.fault, "");
    } catch (error) {
      this.failed = error.message;
      say(this.fault, error.message);
    }
  }
}

function row(each) {
  const parts = {
    link: h("a", { href: `#/deliberations/${encodeURIComponent(each.id)}` }),
    status: badge(),
    members: h("td", { class: "words" }),
    progress: h("td", { class: "words" }),
    winner: h("td", { class: "words" }),
  };
  const element = h(
    "tr",
    null,
    h("th", { scope: "row", class: "words" }, parts.link),
    h("td", null, parts.status),
    parts.members,
    parts.progress,
    parts.winner,
    h("td", null, moment(each.submitted)),
  );
  element.parts = parts;
  return element;
}

function update({ parts }, each) {
  say(parts.link, each.title || each.id);
  showState(parts.status, each.status);
  say(
    parts.members,
    `${each.members} × ${each.role || "several roles"}${each.rounds ? `, ${shownCount(each.rounds, "round")}` : ""}`,
  );
  const { works = 0, done = 0, stage = "" } = each.progress ?? {};
  say(parts.progress, each.ended ? "" : works ? `${stage}: ${done} of ${works}` : stage);
  say(parts.winner, each.winner || (each.ended ? "–" : ""));
}

class AskForm {
  constructor(api, fault) {
    this.api = api;
    this.fault = fault;
    this.task = h("textarea", { name: "task", rows: 3, required: true });
    this.role = choice({ name: "role" }, [["", "default"]]);
    this.members = h("input", { type: "number", name: "members", min: 1, max: 64, value: 3, required: true });
    this.rounds = h("input", { type: "number", name: "rounds", min: 0, max: 10, value: 1, required: true });
    this.rubric = choice({ name: "rubric" }, [["", "default"]]);
    this.council = choice({ name: "council" }, [["", "none"]]);
    this.models = h("select", { name: "models", multiple: true, size: 4 });
    this.timeout = h("input", { type: "number", name: "timeout", min: 1, step: "any", placeholder: "300" });
    this.synthesis = check("Make one answer of all proposals too", { name: "synthesis" });
    this.button = h("button", { type: "submit", class: "primary" }, "Ask");
    const more = h(
      "details",
      null,
      h("summary", null, "Models, council, time"),
      h(
        "div",
        { class: "pair" },
        field("Models", this.models, "Members take them in turn; none chosen: as configured."),
        h(
          "div",
          null,
          field("Council", this.council, "Its members, in place of a number."),
          field("Timeout in seconds", this.timeout),
        ),
      ),
      this.synthesis.element,
    );
    this.element = h(
      "form",
      { class: "card ask", onsubmit: (event) => this.submit(event), "aria-label": "Ask" },
      field("Question", this.task),
      h(
        "div",
        { class: "pair" },
        field("Role", this.role),
        field("Members", this.members),
        field("Rounds", this.rounds),
        field("Rubric", this.rubric),
      ),
      more,
      h("div", { class: "row" }, this.button),
    );
    this.council.addEventListener("change", () => set(this.members, "disabled", this.council.value !== ""));
  }

  // Learn once what a question can name. Whatever cannot be had is left out: the server decides.
  async offer() {
    if (this.offered) return;
    this.offered = true;
    const ask = async (path, take) => {
      try {
        take((await this.api.get(path)).data);
      } catch {
        // it stays as it is
      }
    };
    const named = (list) => list.map((each) => [each.name, each.name]);
    await Promise.all([
      ask("/v1/roles", (list) => chooseFrom(this.role, [["", "default"], ...named(list)])),
      ask("/v1/rubrics", (list) => chooseFrom(this.rubric, [["", "default"], ...named(list)])),
      ask("/v1/councils", (list) => chooseFrom(this.council, [["", "none"], ...named(list)])),
      ask("/v1/models", (list) => {
        const chats = list.filter((each) => each.agents !== 0 && (each.kinds ?? ["chat"]).includes("chat"));
        chooseFrom(
          this.models,
          chats.map((each) => [each.id, each.id]),
        );
      }),
    ]);
  }

  question() {
    const models = [...this.models.selectedOptions].map((each) => each.value);
    const members = Number(this.members.value);
    const asked = { task: this.task.value, rounds: Number(this.rounds.value) };
    if (this.council.value) asked.council = this.council.value;
    else
      asked.members = models.length
        ? Array.from({ length: members }, (_, at) => ({ model: models[at % models.length] }))
        : members;
    if (this.role.value) asked.role = this.role.value;
    if (this.rubric.value) asked.rubric = this.rubric.value;
    if (this.timeout.value) asked.timeout = Number(this.timeout.value);
    if (this.synthesis.box.checked) asked.synthesis = true;
    return asked;
  }

  async submit(event) {
    event.preventDefault();
    this.button.disabled = true;
    say(this.fault, "");
    try {
      const taken = await this.api.post("/v1/deliberations", this.question());
      this.api.go(`deliberations/${encodeURIComponent(taken.id)}`);
    } catch (error) {
      say(this.fault, error.message);
    } finally {
      this.button.disabled = false;
    }
  }
}
