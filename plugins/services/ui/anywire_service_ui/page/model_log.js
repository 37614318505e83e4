// The log of one model process, followed: the newest lines, and what comes; it goes on after a broken connection.

import { commanded } from "./commands.js";
import { fill, h, onFrame, say } from "./dom.js";

const MAX_LINES = 2000; // that are shown; the oldest go
const FIRST_LINES = 200;
const PAUSE_MS = 1000; // before a broken stream is asked for again
const FINAL = new Set(["unknown_command", "invalid_request", "forbidden", "agent_not_found"]);

export class ModelLog {
  constructor(element, api, agentId, model) {
    Object.assign(this, { element, api, agentId, model });
    this.ended = new AbortController();
    this.after = ""; // the id of the newest line
    this.waiting = []; // lines that are not drawn yet
    this.lines = h("pre", {
      class: "log",
      role: "log",
      tabindex: "0",
      "aria-live": "off",
      "aria-label": `Log of ${model}`,
    });
    this.state = h("p", { class: "hint", role: "status" });
    this.drawing = onFrame(() => this.draw());
    const close = h("button", { type: "button", class: "quiet", onclick: () => this.close() }, "Close the log");
    fill(
      element,
      h(
        "section",
        { "aria-label": `Log of ${model}` },
        h("div", { class: "row" }, h("h3", null, `Log of ${model}`), close),
        this.state,
        this.lines,
      ),
    );
    this.follow();
  }

  end() {
    this.ended.abort();
    this.drawing.stop();
  }

  close() {
    this.end();
    fill(this.element);
  }

  async follow() {
    const { signal } = this.ended;
    while (!signal.aborted) {
      try {
        const asked = {
          model: this.model,
          lines: FIRST_LINES,
          follow: true,
          ...(this.after ? { after: this.after } : {}),
        };
        say(this.state, "following");
        for await (const result of commanded(this.api, this.agentId, "models.logs", asked, { signal, deadline: 0 })) {
          this.take(result);
        }
      } catch (error) {
        if (signal.aborted) return;
        say(this.state, error.message);
        if (FINAL.has(error.code) || (error.status >= 400 && error.status < 500)) return;
      }
      if (signal.aborted) return;
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  }

  take(result) {
    if (typeof result.line === "string") {
      this.after = result.id;
      this.waiting.push(result.line);
    } else if (result.missed) this.waiting.push(`… ${result.missed} lines are not kept any more`);
    else if (result.reset) this.waiting.push("… the agent has begun anew");
    if (this.waiting.length > MAX_LINES) this.waiting.splice(0, this.waiting.length - MAX_LINES);
    this.drawing.ask();
  }

  draw() {
    const { lines } = this;
    const follows = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    lines.append(...this.waiting.map((each) => h("div", null, each || " ")));
    this.waiting = [];
    while (lines.childElementCount > MAX_LINES) lines.firstChild.remove();
    if (follows) lines.scrollTop = lines.scrollHeight;
  }
}
