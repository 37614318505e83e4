// What a deliberation has come to: its stages, ranking, members, proposals with what was said of them, and what it cost.

import { h } from "./dom.js";
import { badge, moment, table } from "./form_parts.js";
import { shownCount, shownMs } from "./format.js";

const STAGES = ["submitted", "generating", "critiquing", "revising", "scoring", "completed"];

export function stageList({ status, round }) {
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

export function ranking({ ranking: ranked, scores }) {
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

export function members({ members: list }) {
  const columns = [
    "Member",
    "Role",
    "Model",
    "State",
    "Agents",
    "#Answers",
    "#Failures",
    "#Tokens",
    "#Time",
    "#Mean score",
  ];
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
        h(
          "td",
          { class: "words" },
          (each.agents ?? [])
            .map((agent, at) => `${agent} (${each.transports?.[at] ?? each.transports?.[0] ?? ""})`)
            .join(", ") || "–",
        ),
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
export function evidence(proposal, { critiques, scores }, open) {
  const about = (list) => (list ?? []).filter((each) => each.about === proposal.member);
  const place = proposal.rank ? `, rank ${proposal.rank}` : "";
  const versions = proposal.versions ?? [];
  const parts = [h("p", { class: "text" }, proposal.text)];
  const earlier = versions.filter((each) => each.text !== proposal.text);
  for (const each of earlier) {
    parts.push(
      folded(
        `${proposal.member}/${each.round}`,
        `As it was in round ${each.round}`,
        [h("p", { class: "text" }, each.text)],
        open,
      ),
    );
  }
  const checks = versions.at(-1)?.checks ?? [];
  if (checks.length)
    parts.push(
      h("h3", null, "Checks"),
      h(
        "ul",
        null,
        checks.map((each) => h("li", null, checkText(each))),
      ),
    );
  if (about(critiques).length) parts.push(h("h3", null, "Critiques"));
  for (const each of about(critiques)) {
    parts.push(
      h("p", null, h("strong", null, `${each.member}, round ${each.round}`)),
      h("p", { class: "text quote" }, each.text),
    );
  }
  if (about(scores).length) parts.push(h("h3", null, "Scores"));
  for (const each of about(scores)) {
    const points = Object.entries(each.points ?? {})
      .map(([name, value]) => `${name} ${value}`)
      .join(", ");
    parts.push(h("p", null, h("strong", null, `${each.member}: ${each.score.toFixed(2)}`), points && ` (${points})`));
    if (each.text)
      parts.push(
        folded(
          `${proposal.member}/score/${each.member}`,
          "What it wrote",
          [h("p", { class: "text quote" }, each.text)],
          open,
        ),
      );
  }
  return folded(proposal.member, `${proposal.member} (${proposal.role})${place}`, parts, open);
}

export function folded(name, title, parts, open) {
  return h("details", { "data-name": name, open: open.has(name), class: "evidence" }, h("summary", null, title), parts);
}

export function missing(list) {
  const { element, body } = table("Missing", ["Work", "Why", "Agent"]);
  for (const each of list) {
    body.append(
      h(
        "tr",
        null,
        h("th", { scope: "row", class: "words" }, each.work),
        h("td", { class: "words" }, `${each.code}: ${each.message}`),
        h("td", { class: "words" }, each.agent || "–"),
      ),
    );
  }
  return element;
}

export function cost({ cost: spent = {}, submitted, ended }) {
  const took = spent.seconds ? `, ${shownMs(1000 * spent.seconds)} from the question to the end` : "";
  const tasks = shownCount(spent.tasks ?? 0, "task");
  const when = ended ? `asked ${moment(submitted)}, ended ${moment(ended)}` : `asked ${moment(submitted)}`;
  return h("p", null, `${shownCount(spent.total_tokens ?? 0, "token")} in ${tasks}${took}; ${when}.`);
}

function checkText({ kind, passed, message = "", findings = [] }) {
  return [`${kind}: ${passed ? "passed" : "failed"}`, message, ...findings].filter(Boolean).join("; ");
}
