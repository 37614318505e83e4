// The models of one agent that runs them as processes: states, memory, start, stop, pin, logs, and new ones.

import { collected, commanded } from "./commands.js";
import { fill, h, keyed, say, set } from "./dom.js";
import { actionButton, badge, calmly, choice, field, moment, showState, table } from "./form_parts.js";
import { shownBytes, shownCount } from "./format.js";
import { ModelLog } from "./model_log.js";

const START_S = 900; // that a start may take: the agent has a limit of its own
const KINDS = [
  ["gguf", "a folder with GGUF files, or one file"],
  ["ollama", "a store of Ollama"],
  ["llama-swap", "a file of llama-swap"],
];

export class AgentModels {
  constructor(element, api, agentId) {
    this.api = api;
    this.agentId = agentId;
    this.ended = new AbortController();
    this.changing = new Map(); // by model, the newest status that a start has told
    this.fault = h("p", { class: "fault", role: "alert" });
    this.memory = h("p", { class: "hint" }, "loading …");
    this.meter = h("meter", { min: 0, max: 1, value: 0, hidden: true, "aria-label": "Memory of models in use" });
    this.devices = h("ul", { class: "plain" });
    this.list = table(`Models at ${agentId}`, ["Model", "State", "Where", "#Memory", "Requests", "Since", "Actions"]);
    this.log = h("div");
    this.shownLog = null;
    this.adding = this.addForm();
    this.whole = h("div", { hidden: true }, this.meter, this.devices, this.list.element, this.log, this.adding);
    fill(element, this.fault, this.memory, this.whole);
    this.reading = calmly(() => this.read(), 500);
    this.reading.ask();
  }

  end() {
    this.ended.abort();
    this.reading.stop();
    this.shownLog?.end();
  }

  refresh() {
    this.reading.ask();
  }

  async read() {
    const options = { signal: this.ended.signal, deadline: 15 };
    try {
      const told = await collected(this.api, this.agentId, "models.list", {}, ["models"], options);
      this.show(told);
      say(this.fault, "");
    } catch (error) {
      if (error.name === "AbortError") return;
      const none = error.code === "unknown_command";
      this.whole.hidden ||= none;
      say(this.memory, none ? "This agent runs no model processes: its engine has none to start or stop." : "");
      say(this.fault, none ? "" : error.message);
    }
  }

  show({ models, memory, devices, registry }) {
    this.whole.hidden = false;
    const used = memory?.used_bytes ?? 0;
    const budget = memory?.budget_bytes ?? 0;
    const where = registry?.path ? `; registry ${registry.path}` : "";
    say(this.memory, `${shownBytes(used)} of ${shownBytes(budget)} taken by models${where}`);
    set(this.meter, "hidden", !budget);
    this.meter.value = budget ? Math.min(1, used / budget) : 0;
    if (registry?.fault) say(this.fault, registry.fault);
    keyed(
      this.devices,
      devices ?? [],
      (each) => deviceName(each),
      () => h("li"),
      device,
    );
    keyed(
      this.list.body,
      models,
      (each) => each.model,
      (each) => this.row(each.model),
      (element, each) => this.update(element, each),
    );
  }

  row(model) {
    const fail = (error) => say(this.fault, `${model}: ${error.message}`);
    const parts = {
      state: badge(),
      reason: h("span", { class: "hint" }),
      progress: h("progress", { max: 1, hidden: true, "aria-label": `${model} loads` }),
      where: h("td", { class: "words" }),
      memory: h("td", { class: "number" }),
      requests: h("td", { class: "words" }),
      since: h("td"),
      start: actionButton("Start", () => this.start(model), fail, { "aria-label": `Start ${model}` }),
      stop: stopButton(model, () => this.ask("models.stop", { model }), fail),
      pin: actionButton("Pin", (button) => this.pin(model, button), fail, { class: "quiet" }),
      logs: actionButton("Log", () => this.showLog(model), fail, { class: "quiet", "aria-label": `Log of ${model}` }),
    };
    const element = h(
      "tr",
      null,
      h("th", { scope: "row", class: "words" }, model),
      h("td", { class: "words" }, parts.state, " ", parts.progress, " ", parts.reason),
      parts.where,
      parts.memory,
      parts.requests,
      parts.since,
      h("td", null, h("div", { class: "actions" }, parts.start, parts.stop, parts.pin, parts.logs)),
    );
    element.parts = parts;
    return element;
  }

  update(element, listed) {
    const { parts } = element;
    const told = this.changing.get(listed.model) ?? listed;
    const state = told.state ?? "stopped";
    showState(parts.state, state);
    say(parts.reason, told.exit?.reason && state === "crashed" ? told.exit.reason : (told.reason ?? ""));
    const loads = state === "starting" && told.progress > 0;
    set(parts.progress, "hidden", !loads);
    if (loads) parts.progress.value = told.progress;
    say(parts.where, told.device ?? "–");
    set(parts.where, "title", told.device_reason || null);
    say(parts.memory, told.memory_bytes ? shownBytes(told.memory_bytes) : "–");
    const waiting = told.waiting ? `, ${told.waiting} waiting` : "";
    say(parts.requests, `${told.serving ?? 0}${waiting}`);
    say(parts.since, moment(told.since ?? 0));
    const runs = state === "running" || state === "starting";
    set(parts.start, "hidden", runs || state === "stopping");
    set(parts.stop, "hidden", !runs);
    say(parts.pin, told.pinned ? "Unpin" : "Pin");
    set(parts.pin, "aria-label", `${told.pinned ? "Unpin" : "Pin"} ${listed.model}`);
    parts.pin.isPinned = Boolean(told.pinned);
  }

  async start(model) {
    const options = { signal: this.ended.signal, deadline: START_S };
    try {
      for await (const status of commanded(this.api, this.agentId, "models.start", { model }, options)) {
        this.changing.set(model, status);
        const element = [...this.list.body.children].find((each) => each.firstChild.textContent === model);
        if (element) this.update(element, status);
      }
      this.api.announce(`${model} runs.`);
    } finally {
      this.changing.delete(model);
      this.refresh();
    }
  }

  async ask(name, args) {
    try {
      for await (const _ of commanded(this.api, this.agentId, name, args, {
        signal: this.ended.signal,
        deadline: 120,
      }));
    } finally {
      this.refresh();
    }
  }

  async pin(model, button) {
    await this.ask("models.pin", { model, pinned: !button.isPinned });
  }

  showLog(model) {
    this.shownLog?.end();
    this.shownLog = new ModelLog(this.log, this.api, this.agentId, model);
  }

  addForm() {
    const kind = choice({ name: "kind" }, [["", "one model file"], ...KINDS]);
    const path = h("input", { name: "path", required: true, spellcheck: "false", placeholder: "/models/file.gguf" });
    const button = h("button", { type: "submit" }, "Add");
    const told = h("p", { class: "hint", role: "status" });
    const submit = async (event) => {
      event.preventDefault();
      button.disabled = true;
      say(told, "");
      try {
        say(told, await this.add(kind.value, path.value.trim()));
        path.value = "";
      } catch (error) {
        if (error.name !== "AbortError") say(told, error.message);
      } finally {
        button.disabled = false;
        this.refresh();
      }
    };
    return h(
      "details",
      { class: "add" },
      h("summary", null, "Add models"),
      h(
        "form",
        { onsubmit: submit },
        h("div", { class: "pair" }, field("What", kind), field("Path on the agent's machine", path)),
        h("div", { class: "row" }, button, told),
      ),
    );
  }

  async add(kind, path) {
    const options = { signal: this.ended.signal, deadline: 300 };
    if (!kind) {
      let added = "";
      for await (const status of commanded(this.api, this.agentId, "models.add", { model_file_path: path }, options)) {
        added = status.model;
      }
      return `Added ${added}.`;
    }
    const lists = ["added", "present", "skipped", "notes"];
    const told = await collected(this.api, this.agentId, "models.import", { kind, path }, lists, options);
    const skipped = told.skipped.length
      ? ` Skipped: ${told.skipped
          .slice(0, 5)
          .map((each) => `${each.about}: ${each.text}`)
          .join("; ")}`
      : "";
    return `Added ${shownCount(told.added.length, "model")}; ${told.present.length} were there before.${skipped}`;
  }
}

// A button that asks once more before it stops a model: requests that it answers end with it.
function stopButton(model, stop, fail) {
  let sure = 0;
  const button = actionButton(
    "Stop",
    async () => {
      if (!sure) {
        sure = setTimeout(() => calm(), 4000);
        say(button, "Really stop?");
        set(button, "aria-label", `Really stop ${model}?`);
        return;
      }
      calm();
      await stop();
    },
    fail,
    { "aria-label": `Stop ${model}` },
  );
  function calm() {
    clearTimeout(sure);
    sure = 0;
    say(button, "Stop");
    set(button, "aria-label", `Stop ${model}`);
  }
  return button;
}

function device(element, each) {
  const total = each.vram_total_bytes;
  const room = Number.isFinite(total) ? `: ${shownBytes(each.vram_free_bytes ?? 0)} of ${shownBytes(total)} free` : "";
  say(element, deviceName(each) + room);
}

function deviceName(each) {
  return each.device ? `${each.device} (${each.name})` : String(each.name ?? "device");
}
