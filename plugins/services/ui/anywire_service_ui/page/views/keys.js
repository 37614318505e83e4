// Keys: who may do what here, and the commands that make and revoke keys. Secrets are seen once, where they are made.

import { fill, h, keyed, say } from "../dom.js";
import { badge, calmly, choice, copyBox, field, moment, showState, table } from "../form_parts.js";

const RIGHTS = [
  ["use", "Ask, and see and cancel the tasks of its tenant."],
  ["observe", "See all agents, tasks and metrics besides."],
  ["operate", "Cancel all tasks, send commands, drain and isolate agents besides."],
];

export function mount(element, api) {
  const own = new Keys(element, api);
  return () => own.end();
}

class Keys {
  constructor(element, api) {
    this.api = api;
    this.ended = new AbortController();
    this.fault = h("p", { class: "fault", role: "alert" });
    this.summary = h("p", { class: "hint" }, "loading …");
    this.list = table("Keys", ["Label", "Id", "Tenant", "Role", "State", "Limits", "Made", "Runs out", "Revoke"]);
    this.revoking = copyBox("The command that revokes a key");
    this.revoke = h(
      "section",
      { hidden: true, "aria-label": "Revoke a key" },
      h("h2", null, "Revoke a key"),
      this.revoking.element,
    );
    fill(element, h("h1", null, "Keys"), this.you(), this.fault, this.listed(), this.revoke, new NewKey().element);
    this.reading = calmly(() => this.read(), 1000);
    this.unlisten = api.store.listen((event) => /^(key|page)\./.test(event.type) && this.ask());
    this.ask();
  }

  end() {
    this.ended.abort();
    this.reading.stop();
    this.unlisten();
  }

  you() {
    const { id, tenant, role } = this.api.caller;
    const who = id ? `You are ${id}, with` : "You have";
    const named = `${who} the role ${role}${tenant ? `, tenant ${tenant}` : ""}`;
    return h(
      "section",
      { class: "card", "aria-label": "What you may do" },
      h("p", null, `${named}.`),
      h(
        "dl",
        { class: "facts" },
        RIGHTS.map(([name, text]) => [
          h("dt", null, name),
          h("dd", null, text, this.api.may(name) ? " You may." : " You may not."),
        ]),
      ),
    );
  }

  listed() {
    if (this.api.may("operate")) return h("div", null, this.summary, this.list.element);
    return h("p", { class: "hint" }, "To see all keys needs the role operate.");
  }

  ask() {
    if (this.api.may("operate")) this.reading.ask();
  }

  async read() {
    try {
      const { data, total, needs_key: needsKey } = await this.api.get("/v1/ui/keys", { signal: this.ended.signal });
      say(this.fault, "");
      const more = total > data.length ? ` The newest ${data.length} of ${total} are shown.` : "";
      const open = "Nobody needs a key here: whoever is on the server's machine may operate, others may use.";
      say(this.summary, needsKey ? `${data.length ? "" : "There are no keys in the file of keys."}${more}` : open);
      this.list.element.hidden = !data.length;
      keyed(
        this.list.body,
        data,
        (each) => each.id,
        (each) => this.row(each),
        update,
      );
    } catch (error) {
      if (error.name !== "AbortError") say(this.fault, error.message);
    }
  }

  row(key) {
    const name = key.label || key.id;
    const button = h(
      "button",
      { type: "button", class: "quiet", "aria-label": `Revoke ${name} …`, onclick: () => this.tell(key) },
      "Revoke …",
    );
    const parts = {
      label: h("th", { scope: "row", class: "words" }),
      tenant: h("td", { class: "words" }),
      role: h("td"),
      state: badge(),
      limits: h("td", { class: "words" }),
      expires: h("td"),
      button,
    };
    const element = h(
      "tr",
      null,
      parts.label,
      h("td", null, h("code", { class: "whole" }, key.id)),
      parts.tenant,
      parts.role,
      h("td", null, parts.state),
      parts.limits,
      h("td", null, moment(key.created)),
      parts.expires,
      h("td", null, button),
    );
    element.parts = parts;
    return element;
  }

  tell(key) {
    this.revoke.hidden = false;
    this.revoking.take(`anywire keys revoke ${quoted(key.id)}`);
    this.revoke.querySelector("pre").focus();
  }
}

function update({ parts }, key) {
  say(parts.label, key.label || "–");
  say(parts.tenant, key.tenant);
  say(
    parts.role,
    [key.role, key.invites && "invites agents", key.certificate && "by certificate"].filter(Boolean).join(", "),
  );
  showState(parts.state, key.state);
  say(parts.limits, limitText(key.limits ?? {}));
  say(parts.expires, key.revoked ? `revoked ${moment(key.revoked)}` : moment(key.expires) || "never");
  parts.button.hidden = key.state === "revoked";
}

function limitText(limits) {
  const found = [];
  if (limits.models?.length) found.push(`models ${limits.models.join(", ")}`);
  if (typeof limits.max_priority === "number") found.push(`priority up to ${limits.max_priority}`);
  if (limits.requests_per_minute) found.push(`${limits.requests_per_minute} requests a minute`);
  if (limits.concurrency) found.push(`${limits.concurrency} tasks at a time`);
  if (limits.tokens_per_day) found.push(`${limits.tokens_per_day.toLocaleString("en")} tokens a day`);
  return found.join("; ") || "none";
}

// The command that makes a key, as the form says. It is run where the file of keys is: a key goes over no network.
class NewKey {
  constructor() {
    const number = (name) => h("input", { type: "number", name, min: 1, step: 1, placeholder: "no limit" });
    this.controls = {
      label: h("input", { name: "label", placeholder: "Ann's notebook" }),
      tenant: h("input", { name: "tenant", placeholder: "a tenant of its own" }),
      role: choice(
        { name: "role" },
        RIGHTS.map(([name]) => [name, name]),
      ),
      model: h("input", { name: "model", placeholder: "all models" }),
      expires: h("input", { name: "expires", placeholder: "never; 30d, 12h" }),
      "max-priority": h("input", { type: "number", name: "max-priority", step: 1, placeholder: "no limit" }),
      "requests-per-minute": number("requests-per-minute"),
      concurrency: number("concurrency"),
      "tokens-per-day": number("tokens-per-day"),
    };
    this.code = copyBox("The command that makes a key");
    const { label, tenant, role, model, expires } = this.controls;
    const form = h(
      "form",
      { class: "card", onsubmit: (event) => event.preventDefault(), oninput: () => this.tell() },
      h(
        "div",
        { class: "pair" },
        field("Label", label),
        field("Tenant", tenant),
        field("Role", role),
        field("Runs out after", expires),
      ),
      h(
        "div",
        { class: "pair" },
        field("Models, with commas between", model),
        field("Highest priority", this.controls["max-priority"]),
        field("Requests a minute", this.controls["requests-per-minute"]),
        field("Tasks at a time", this.controls.concurrency),
        field("Tokens a day", this.controls["tokens-per-day"]),
      ),
      this.code.element,
      h(
        "p",
        { class: "hint" },
        "Run it on the server's machine, for the file of access.keys. It prints the key this once.",
      ),
    );
    this.element = h("section", { "aria-label": "Make a key" }, h("h2", null, "Make a key"), form);
    this.tell();
  }

  tell() {
    const options = Object.entries(this.controls)
      .filter(([name, { value }]) => value.trim() && !(name === "role" && value === "use"))
      .flatMap(([name, { value }]) =>
        (name === "model" ? value.split(",") : [value]).map((each) => `--${name} ${quoted(each.trim())}`),
      );
    this.code.take(["umask 077; anywire keys create", ...options].join(" "));
  }
}

function quoted(text) {
  return /^[\w.:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
