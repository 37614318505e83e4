// The playground: a chat with a model of the fleet, as any client of the API has it.

import { agentsAt, asCurl, asPython, chatBody, chatHeaders } from "../chat_request.js";
import { fill, h, onFrame, say } from "../dom.js";
import { calmly, check, choice, chooseFrom, copyBox, field } from "../form_parts.js";
import { PATH, Turn } from "../turn.js";

const MAX_TURNS = 100; // questions that are kept, with their answers
const NONE = "No agent offers a model for chats.";

export function mount(element, api, parts) {
  const own = new Playground(element, api, parts);
  return () => own.end();
}

class Playground {
  constructor(element, api, [model = ""]) {
    this.api = api;
    this.wanted = model; // that the address names
    this.turns = []; // Turn
    this.asking = null; // the AbortController of the answer that is on its way
    this.controls = {
      model: choice({ name: "model", required: true }, []),
      place: choice({ name: "place" }, [["", "anywhere"]]),
      system: h("textarea", { name: "system", rows: 2 }),
      temperature: number("temperature", { min: 0, max: 2, step: "any", placeholder: "default" }),
      top_p: number("top_p", { min: 0, max: 1, step: "any", placeholder: "default" }),
      max_tokens: number("max_tokens", { min: 1, step: 1, placeholder: "default" }),
      seed: number("seed", { step: 1, placeholder: "random" }),
      stop: h("textarea", { name: "stop", rows: 2 }),
      timeout: number("timeout", { min: 0.1, step: "any", placeholder: "600" }),
      priority: number("priority", { min: -1000, max: 1000, step: 1, placeholder: "0" }),
    };
    this.json = check("Answer with JSON", { name: "json" });
    this.log = h("div", {
      class: "chat",
      role: "log",
      "aria-label": "Conversation",
      "aria-live": "off",
      tabindex: "0",
    });
    this.empty = h(
      "p",
      { class: "hint" },
      "Ask something. The conversation stays in this tab, until you leave this view.",
    );
    this.message = h("textarea", { name: "message", rows: 3, required: true, placeholder: "Ctrl+Enter sends" });
    this.send = h("button", { type: "submit", class: "primary" }, "Send");
    this.stop = h("button", { type: "button", disabled: true, onclick: () => this.asking?.abort() }, "Stop");
    this.clear = h("button", { type: "button", class: "quiet", onclick: () => this.forget() }, "New conversation");
    this.code = { curl: copyBox("The request as a curl command"), python: copyBox("The request as a Python program") };
    this.fault = h("p", { class: "fault", role: "alert" });
    this.drawing = onFrame(() => this.draw());
    this.finding = calmly(() => this.find(), 1000);
    this.placing = calmly(() => this.findPlaces(), 1000);
    fill(element, h("h1", null, "Playground"), this.layout());
    this.unlisten = api.store.listen((event) => /^(agent|offer|page)\./.test(event.type) && this.finding.ask());
    this.unsubscribe = api.store.subscribe(() => this.placing.ask());
    this.finding.ask();
    this.placing.ask();
  }

  end() {
    this.asking?.abort();
    this.finding.stop();
    this.placing.stop();
    this.drawing.stop();
    this.unlisten();
    this.unsubscribe();
  }

  layout() {
    const { model, place, system, temperature, top_p, max_tokens, seed, stop, timeout, priority } = this.controls;
    const form = h(
      "form",
      { class: "ask", onsubmit: (event) => this.submit(event) },
      field("Message", this.message),
      h("div", { class: "row" }, this.send, this.stop, this.clear),
      this.fault,
    );
    this.message.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    const where = this.api.may("observe")
      ? "A wish: where it cannot be, another agent answers, and the headers say which."
      : "To choose an agent or a transport needs the role observe.";
    place.disabled = !this.api.may("observe");
    const settings = h(
      "section",
      { class: "settings", "aria-label": "Settings of the request" },
      field("Model", model),
      field("Where", place, where),
      field("System message", system),
      h("div", { class: "pair" }, field("Temperature", temperature), field("top_p", top_p)),
      h("div", { class: "pair" }, field("Most tokens", max_tokens), field("Seed", seed)),
      h("div", { class: "pair" }, field("Timeout in seconds", timeout), field("Priority", priority)),
      field("Stop at", stop, "One text on each line."),
      this.json.element,
      h("details", { ontoggle: () => this.tellCode() }, h("summary", null, "As curl"), this.code.curl.element),
      h("details", { ontoggle: () => this.tellCode() }, h("summary", null, "As Python"), this.code.python.element),
    );
    settings.addEventListener("input", () => this.tellCode());
    this.message.addEventListener("input", () => this.tellCode());
    fill(this.log, this.empty);
    return h("div", { class: "playground" }, h("div", { class: "talk" }, this.log, form), settings);
  }

  // Learn which models there are.
  async find() {
    try {
      const models = (await this.api.get("/v1/models")).data.filter(
        (each) => !each.kinds || each.kinds.includes("chat"),
      );
      chooseFrom(
        this.controls.model,
        models.map((each) => [each.id, each.state === "ready" ? each.id : `${each.id} (${each.state})`]),
      );
      if (models.some((each) => each.id === this.wanted)) this.controls.model.value = this.wanted;
      this.wanted = "";
      if (!models.length) say(this.fault, NONE);
      else if (this.fault.textContent === NONE) say(this.fault, "");
      this.tellCode();
    } catch (error) {
      say(this.fault, error.message);
    }
  }

  findPlaces() {
    const agents = [...this.api.store.state.agents.values()];
    const transports = [...new Set(agents.map((each) => each.transport))].filter(Boolean).sort();
    chooseFrom(this.controls.place, [
      ["", "anywhere"],
      { group: "Agents reached over", options: transports.map((each) => [`transport:${each}`, each]) },
      { group: "One agent", options: agents.map((each) => [`agent:${each.id}`, each.id]) },
    ]);
  }

  // The request as the form has it, with `message` as its last one. Throws an Error that says what is wrong.
  request(message) {
    const form = Object.fromEntries(Object.entries(this.controls).map(([name, control]) => [name, control.value]));
    form.json = this.json.box.checked;
    const messages = this.turns
      .filter(({ answer }) => answer.text)
      .flatMap(({ question, answer }) => [user(question), { role: "assistant", content: answer.text }]);
    const body = chatBody(form, [...messages, user(message)]);
    return { body, headers: chatHeaders(form, agentsAt(form.place, [...this.api.store.state.agents.values()])) };
  }

  tellCode() {
    try {
      const { body, headers } = this.request(this.message.value || "Hello");
      const withKey = Boolean(this.api.key);
      this.code.curl.take(asCurl(this.api.base + PATH, headers, body, withKey));
      this.code.python.take(asPython(`${this.api.base}/v1`, headers, body, withKey));
    } catch (error) {
      this.code.curl.take(error.message);
      this.code.python.take(error.message);
    }
  }

  async submit(event) {
    event.preventDefault();
    if (this.asking) return;
    const question = this.message.value;
    let request;
    try {
      request = this.request(question);
    } catch (error) {
      say(this.fault, error.message);
      return;
    }
    say(this.fault, "");
    this.message.value = "";
    const turn = new Turn(question, this.api);
    this.empty.remove();
    this.log.append(turn.element);
    this.turns.push(turn);
    if (this.turns.length > MAX_TURNS) this.turns.shift().element.remove();
    this.asking = new AbortController();
    this.busy(true);
    try {
      await turn.ask(request, this.asking.signal, () => this.drawing.ask());
    } finally {
      this.asking = null;
      this.draw();
      this.busy(false);
      this.tellCode();
      this.api.announce(turn.answer.error ? "The answer failed." : "The answer is whole.");
      this.message.focus();
    }
  }

  busy(isBusy) {
    this.send.disabled = isBusy;
    this.clear.disabled = isBusy;
    this.stop.disabled = !isBusy;
  }

  draw() {
    const follows = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
    this.turns.at(-1)?.draw();
    if (follows) this.log.scrollTop = this.log.scrollHeight;
  }

  forget() {
    this.turns = [];
    fill(this.log, this.empty);
    this.tellCode();
    this.message.focus();
  }
}

function user(content) {
  return { role: "user", content };
}

function number(name, attributes) {
  return h("input", { type: "number", name, ...attributes });
}
