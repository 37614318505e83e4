// A question of the playground and its answer, with what is known of it.

import { ApiError } from "./api.js";
import { ChatAnswer } from "./chat_stream.js";
import { fill, h, say } from "./dom.js";
import { shownCount, shownMs } from "./format.js";

export const PATH = "/v1/chat/completions";
const BROKEN_OFF = "The answer broke off: the connection was lost.";
const SHOWN_HEADERS = /^(x-anywire-|x-request-id|retry-after)/;

export class Turn {
  constructor(question, api) {
    this.api = api;
    this.question = question;
    this.answer = new ChatAnswer(performance.now());
    this.headers = [];
    this.text = document.createTextNode("");
    this.reasoning = h("pre", { class: "text" });
    this.thought = h("details", { class: "thought", hidden: true }, h("summary", null, "Reasoning"), this.reasoning);
    this.calls = h("div", { class: "calls" });
    this.state = h("p", { class: "hint", "data-part": "state" }, "sent");
    this.fault = h("p", { class: "fault", role: "alert" });
    this.facts = h("dl", { class: "facts" });
    this.more = h("details", { hidden: true }, h("summary", null, "Headers and times"), this.facts);
    this.element = h(
      "article",
      { class: "turn", "aria-busy": "true" },
      h("div", { class: "said by-user" }, h("span", { class: "speaker" }, "You"), h("p", { class: "text" }, question)),
      h(
        "div",
        { class: "said by-model" },
        h("span", { class: "speaker" }, "Answer"),
        this.thought,
        h("p", { class: "text", "data-part": "answer" }, this.text),
        this.calls,
        this.fault,
        this.state,
        this.more,
      ),
    );
  }

  async ask({ body, headers }, signal, changed) {
    const answer = (this.answer = new ChatAnswer(performance.now()));
    const onAnswer = (told) => {
      this.headers = [...told.headers].filter(([name]) => SHOWN_HEADERS.test(name));
      changed();
    };
    try {
      for await (const event of this.api.stream(PATH, { method: "POST", body, headers, signal, onAnswer })) {
        if (answer.take(event, performance.now())) changed();
        if (answer.error) break;
      }
      if (!answer.ended && !answer.error) answer.error = BROKEN_OFF;
    } catch (error) {
      answer.error = error instanceof ApiError ? error.message : BROKEN_OFF;
      if (error.name === "AbortError") answer.error = "Stopped. The task was cancelled.";
    }
    this.element.removeAttribute("aria-busy");
  }

  draw() {
    const { answer } = this;
    if (answer.text.length > this.text.length) this.text.appendData(answer.text.slice(this.text.length));
    if (answer.reasoning) {
      this.thought.hidden = false;
      say(this.reasoning, answer.reasoning);
    }
    if (answer.toolCalls.length) {
      fill(
        this.calls,
        answer.toolCalls.map((each) => h("pre", { class: "text" }, `${each.name}(${each.arguments})`)),
      );
    }
    say(this.fault, answer.error);
    say(this.state, this.told());
    this.tellFacts();
  }

  told() {
    const { answer } = this;
    const found = [];
    if (answer.progress) found.push(answer.progress);
    if (answer.firstAfter) found.push(`first token after ${shownMs(answer.firstAfter)}`);
    if (answer.tokens) found.push(shownCount(answer.tokens, "token"));
    if (answer.rate) found.push(`${answer.rate.toFixed(1)} tokens/s`);
    if (answer.finish && answer.finish !== "stop") found.push(`ended: ${answer.finish}`);
    if (answer.leftOut) found.push(`${shownCount(answer.leftOut, "character")} not shown`);
    const where = this.header("x-anywire-agent");
    if (where) found.push(`${where} over ${this.header("x-anywire-transport")}`);
    return found.join(" · ") || (answer.error ? "" : "sent");
  }

  header(name) {
    return this.headers.find(([each]) => each === name)?.[1] ?? "";
  }

  tellFacts() {
    const { usage, stages } = this.answer;
    const facts = [...this.headers];
    if (usage) facts.push(["tokens in, out", `${usage.prompt_tokens ?? "?"}, ${usage.completion_tokens ?? "?"}`]);
    for (const [name, value] of Object.entries(stages ?? {})) facts.push([`time ${name}`, shownMs(Number(value))]);
    if (!facts.length || facts.length === this.shown) return;
    this.shown = facts.length;
    this.more.hidden = false;
    const task = this.header("x-anywire-task");
    fill(
      this.facts,
      facts.map(([name, value]) => [h("dt", null, name), h("dd", null, String(value))]),
      task && [h("dt", null, "more"), h("dd", null, taskLink(task))],
    );
  }
}

function taskLink(task) {
  return h("a", { href: `#/tasks/${encodeURIComponent(task)}` }, "where its time went, and why that agent");
}
