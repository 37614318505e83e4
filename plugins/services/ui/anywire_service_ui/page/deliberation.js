// One deliberation: how it stands, what happens, its ranking, and the proposals, critiques and scores behind it.

import { fill, h, say, set } from "./dom.js";
import { cost, evidence, folded, members, missing, ranking, stageList } from "./evidence.js";
import { actionButton, calmly } from "./form_parts.js";
import { shownMs } from "./format.js";

const MAX_NEWS = 200; // events that are listed; the oldest go
const PAUSE_MS = 1000; // before a broken stream is asked for again
const FINAL = ["completed", "degraded", "timed_out", "failed", "cancelled"];

export class DeliberationPage {
  constructor(element, api, id) {
    Object.assign(this, { api, id });
    this.path = `/v1/deliberations/${encodeURIComponent(id)}`;
    this.ended = new AbortController();
    this.newest = 0; // number of the newest event
    this.drawn = ""; // what was drawn, so that what is open stays open
    this.fault = h("p", { class: "fault", role: "alert" });
    this.title = h("h1", null, "Deliberation");
    this.status = h("p", { class: "headline" }, "loading …");
    this.bar = h("progress", { max: 1, hidden: true, "aria-label": "Work of this stage" });
    this.cancel = actionButton(
      "Cancel it",
      () => this.stop(),
      (error) => say(this.fault, error.message),
      { hidden: true },
    );
    this.body = h("div");
    this.news = h("ol", { class: "news", tabindex: "0", "aria-label": "What has happened" });
    fill(
      element,
      h("p", null, h("a", { href: "#/deliberations" }, "All deliberations")),
      this.title,
      this.fault,
      this.status,
      h("div", { class: "row" }, this.bar, this.cancel),
      this.body,
      h("details", { open: true }, h("summary", null, "What has happened"), this.news),
    );
    this.reading = calmly(() => this.read(), 400);
    this.unlisten = api.store.listen((event) => event.type === "page.behind" && this.reading.ask());
    this.reading.ask();
    this.follow();
  }

  end() {
    this.unlisten();
    this.ended.abort();
    this.reading.stop();
  }

  async read() {
    try {
      this.show(await this.api.get(this.path, { signal: this.ended.signal }));
      say(this.fault, "");
    } catch (error) {
      if (error.name === "AbortError") return;
      say(this.fault, error.message);
      if (error.status === 404) say(this.status, "There is no such deliberation (any more).");
    }
  }

  async follow() {
    const { signal } = this.ended;
    while (!signal.aborted) {
      try {
        const path = `${this.path}/events?after=${this.newest}`;
        for await (const { event, data } of this.api.stream(path, { signal })) {
          if (event === "comment" || event === "ping") continue;
          if (event === "error") throw new Error(JSON.parse(data).error?.message ?? "the stream failed");
          this.take(JSON.parse(data));
          if (event === "ended") return;
        }
      } catch (error) {
        if (signal.aborted || error.status === 404 || error.status === 403 || error.status === 401) return;
      }
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  }

  take(update) {
    this.newest = Math.max(this.newest, update.number);
    this.news.append(h("li", { class: update.name === "failed" ? "failed" : null }, newsText(update)));
    while (this.news.childElementCount > MAX_NEWS) this.news.firstChild.remove();
    this.news.scrollTop = this.news.scrollHeight;
    if (update.name === "stage" || update.name === "ended") this.api.announce(newsText(update));
    this.reading.ask();
  }

  async stop() {
    await this.api.del(this.path, { signal: this.ended.signal });
    this.reading.ask();
  }

  show(told) {
    const ended = FINAL.includes(told.status);
    say(this.title, short(told.task, 160));
    const reason = told.reason ? `: ${told.reason}` : "";
    const winner = told.winner ? `. ${told.winner} wins` : "";
    say(this.status, `${told.status}${reason}${winner}`);
    set(this.cancel, "hidden", ended);
    const { works = 0, done = 0, failed = 0 } = told.progress ?? {};
    set(this.bar, "hidden", ended || !works);
    if (works) this.bar.value = (done + failed) / works;
    // What has not changed is not made again: what somebody has opened stays open.
    const open = new Set([...this.body.querySelectorAll("details[open]")].map((each) => each.dataset.name));
    const drawn = JSON.stringify([
      told.status,
      told.proposals,
      told.critiques,
      told.scores,
      told.ranking,
      told.members,
      told.missing,
      told.late,
    ]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    fill(
      this.body,
      stageList(told),
      told.task.length > 160
        ? folded("task", "The whole question", [h("p", { class: "text" }, told.task)], open)
        : null,
      told.answer
        ? h(
            "section",
            { class: "card", "aria-label": "Answer" },
            h("h2", null, "Answer"),
            h("p", { class: "text" }, told.answer),
          )
        : null,
      told.synthesis
        ? folded(
            "synthesis",
            "Made of all proposals (nobody has scored it)",
            [h("p", { class: "text" }, told.synthesis)],
            open,
          )
        : null,
      told.ranking?.length ? [h("h2", null, "Ranking"), ranking(told)] : null,
      told.dissent?.length
        ? h("p", { class: "hint" }, `${told.dissent.join(", ")} scored another proposal higher than the winner's.`)
        : null,
      h("h2", null, "Members"),
      members(told),
      h("h2", null, "Evidence"),
      told.proposals?.length
        ? told.proposals.map((each) => evidence(each, told, open))
        : h("p", { class: "hint" }, "No proposal yet."),
      told.missing?.length ? [h("h2", null, "Missing"), missing(told.missing)] : null,
      h("h2", null, "Cost"),
      cost(told),
    );
  }
}

// One event of a deliberation as a sentence.
export function newsText({ name, data = {} }) {
  switch (name) {
    case "stage":
      return `${data.status}${data.round ? `, round ${data.round}` : ""} begins`;
    case "asked":
      return `${data.work} is asked${data.tries > 1 ? ` once more (${data.tries})` : ""}`;
    case "answered":
    case "late": {
      const late = name === "late" ? ", too late to count" : "";
      const score = typeof data.score === "number" ? `, score ${data.score.toFixed(2)}` : "";
      return `${data.work} is answered by ${data.agent} over ${data.transport} in ${shownMs(1000 * (data.seconds ?? 0))}${score}${late}`;
    }
    case "failed":
      return `${data.work} failed: ${data.code}: ${data.message}${data.again ? "; it is asked again" : ""}`;
    case "ended":
      return `${data.status}${data.winner ? `: ${data.winner} wins` : ""}${data.reason ? ` (${data.reason})` : ""}`;
    default:
      return String(name);
  }
}

function short(text, chars) {
  const line = text
    .slice(0, 4 * chars)
    .split(/\s+/)
    .join(" ")
    .trim();
  return line.length > chars ? `${line.slice(0, chars)}…` : line;
}
