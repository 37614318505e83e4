// One deliberation: how it stands, what happens, its ranking, and the proposals, critiques and scores behind it.

import { fill, h, say, set } from "./dom.js";
import { actionButton, badge, calmly, moment, table } from "./form_parts.js";
import { shownCount, shownMs } from "./format.js";

const MAX_NEWS = 200; // events that are listed; the oldest go
const PAUSE_MS = 1000; // before a broken stream is asked for again
const FINAL = ["completed", "degraded", "timed_out", "failed", "cancelled"];
const STAGES = ["submitted", "generating", "critiquing", "revising", "scoring", "completed"];

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
    this.cancel = actionButton("Cancel it", () => this.stop(), (error) => say(this.fault, error.message), { hidden: true });
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
    this.reading.ask();
    this.follow();
  }

  end() {
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
    const drawn = JSON.stringify([told.status, told.proposals, told.critiques, told.scores, told.ranking, told.members, told.missing, told.late]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    fill(
      this.body,
      stageList(told),
      told.task.length > 160 ? folded("task", "The whole question", [h("p", { class: "text" }, told.task)], open) : null,
      told.answer ? h("section", { class: "card", "aria-label": "Answer" }, h("h2", null, "Answer"), h("p", { class: "text" }, told.answer)) : null,
      told.synthesis ? folded("synthesis", "Made of all proposals (nobody has scored it)", [h("p", { class: "text" }, told.synthesis)], open) : null,
      told.ranking?.length ? [h("h2", null, "Ranking"), ranking(told)] : null,
      told.dissent?.length ? h("p", { class: "hint" }, `${told.dissent.join(", ")} scored another proposal higher than the winner's.`) : null,
      h("h2", null, "Members"),
      members(told),
      h("h2", null, "Evidence"),
      told.proposals?.length ? told.proposals.map((each) => evidence(each, told, open)) : h("p", { class: "hint" }, "No proposal yet."),
      told.missing?.length ? [h("h2", null, "Missing"), missing(told.missing)] : null,
      h("h2", null, "Cost"),
      cost(told),
    );
  }
}

function stageList({ status, round }) {
  const at = STAGES.indexOf(status);
  if (at < 0) return null;
  return h(
    "ol",
    { class: "stages", "aria-label": "Stages" },
    STAGES.map((each) =>
      h(
        "li",
        { "aria-current": each === status ? "step" : null, class: STAGES.indexOf(each) < at ? "done" : null },
        each === status && round ? `${each}, round ${round}` : each,
      ),
    ),
  );
}

function ranking({ ranking: ranked, scores }) {
  const judges = [...new Set(scores.map((each) => each.member))].sort();
  const { element, body } = table("Ranking", ["#Rank", "Member", "#Value", ...judges.map((each) => `#by ${each}`)]);
  for (const each of ranked) {
    body.append(
      h(
        "tr",
        { class: each.rank === 1 ? "winner" : null },
        h("td", { class: "number" }, each.rank),
        h("th", { scope: "row", class: "words" }, each.member),
        h("td", { class: "number" }, each.value.toFixed(2)),
        judges.map((judge) => h("td", { class: "number" }, each.scores?.[judge]?.toFixed(2) ?? "–")),
      ),
    );
  }
  return element;
}

function members({ members: list }) {
  const columns = ["Member", "Role", "Model", "State", "Agents", "#Answers", "#Failures", "#Tokens", "#Time", "#Mean score"];
  const { element, body } = table("Members", columns);
  for (const each of list ?? []) {
    body.append(
      h(
        "tr",
        null,
        h("th", { scope: "row", class: "words" }, each.name),
        h("td", { class: "words" }, each.role),
        h("td", { class: "words" }, each.model || "–"),
        h("td", null, badge(each.state)),
        h("td", { class: "words" }, (each.agents ?? []).map((agent, at) => `${agent} (${each.transports?.[at] ?? each.transports?.[0] ?? ""})`).join(", ") || "–"),
        h("td", { class: "number" }, each.answers ?? 0),
        h("td", { class: "number" }, each.failures ?? 0),
        h("td", { class: "number" }, (each.prompt_tokens ?? 0) + (each.completion_tokens ?? 0)),
        h("td", { class: "number" }, shownMs(1000 * (each.agent_seconds ?? 0))),
        h("td", { class: "number" }, typeof each.score === "number" ? each.score.toFixed(2) : "–"),
      ),
    );
  }
  return element;
}

// A proposal with what was said of it and how it was scored.
function evidence(proposal, { critiques, scores }, open) {
  const about = (list) => (list ?? []).filter((each) => each.about === proposal.member);
  const place = proposal.rank ? `, rank ${proposal.rank}` : "";
  const versions = proposal.versions ?? [];
  const parts = [h("p", { class: "text" }, proposal.text)];
  const earlier = versions.filter((each) => each.text !== proposal.text);
  for (const each of earlier) {
    parts.push(folded(`${proposal.member}/${each.round}`, `As it was in round ${each.round}`, [h("p", { class: "text" }, each.text)], open));
  }
  const checks = versions.at(-1)?.checks ?? [];
  if (checks.length) parts.push(h("h3", null, "Checks"), h("ul", null, checks.map((each) => h("li", null, checkText(each)))));
  if (about(critiques).length) parts.push(h("h3", null, "Critiques"));
  for (const each of about(critiques)) {
    parts.push(h("p", null, h("strong", null, `${each.member}, round ${each.round}`)), h("p", { class: "text quote" }, each.text));
  }
  if (about(scores).length) parts.push(h("h3", null, "Scores"));
  for (const each of about(scores)) {
    const points = Object.entries(each.points ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
    parts.push(h("p", null, h("strong", null, `${each.member}: ${each.score.toFixed(2)}`), points && ` (${points})`));
    if (each.text) parts.push(folded(`${proposal.member}/score/${each.member}`, "What it wrote", [h("p", { class: "text quote" }, each.text)], open));
  }
  return folded(proposal.member, `${proposal.member} (${proposal.role})${place}`, parts, open);
}

function folded(name, title, parts, open) {
  return h("details", { "data-name": name, open: open.has(name), class: "evidence" }, h("summary", null, title), parts);
}

function missing(list) {
  const { element, body } = table("Missing", ["Work", "Why", "Agent"]);
  for (const each of list) {
    body.append(
      h("tr", null, h("th", { scope: "row", class: "words" }, each.work), h("td", { class: "words" }, `${each.code}: ${each.message}`), h("td", { class: "words" }, each.agent || "–")),
    );
  }
  return element;
}

function cost({ cost: spent = {}, submitted, ended }) {
  const took = spent.seconds ? `, ${shownMs(1000 * spent.seconds)} from the question to the end` : "";
  const tasks = shownCount(spent.tasks ?? 0, "task");
  const when = ended ? `asked ${moment(submitted)}, ended ${moment(ended)}` : `asked ${moment(submitted)}`;
  return h("p", null, `${shownCount(spent.total_tokens ?? 0, "token")} in ${tasks}${took}; ${when}.`);
}

function checkText({ kind, passed, message = "", findings = [] }) {
  return [`${kind}: ${passed ? "passed" : "failed"}`, message, ...findings].filter(Boolean).join("; ");
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
  const line = text.slice(0, 4 * chars).split(/\s+/).join(" ").trim();
  return line.length > chars ? `${line.slice(0, chars)}…` : line;
}
