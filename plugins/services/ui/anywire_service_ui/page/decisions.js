// How the agents of a task were chosen, as `anywire explain` tells it.

import { h } from "./dom.js";
import { shownCount, shownMs } from "./format.js";

export function decisionsOf(record) {
  const found = record.decisions ?? [];
  if (!found.length)
    return h("p", { class: "hint" }, record.place === "ended" ? "No agent was chosen." : "No agent was chosen yet.");
  return h("ol", { class: "decisions" }, found.map(decision));
}

function decision(each) {
  const what = each.agent_id ? ["chose ", h("b", null, each.agent_id)] : "let it wait for an agent";
  const times = each.repeated > 1 ? `, ${each.repeated} times` : "";
  const more = each.candidates - each.considered.length;
  return h(
    "li",
    null,
    h(
      "p",
      null,
      `After ${shownMs(each.after_ms)} the selector ${each.selector} `,
      what,
      ` for ${each.model}${times}. It took ${each.took_us.toFixed(0)} µs.`,
    ),
    each.reason ? h("p", null, `Reason: ${each.reason}`) : null,
    each.considered.length
      ? h(
          "div",
          { class: "scroll", tabindex: 0, role: "region", "aria-label": "Candidates" },
          h(
            "table",
            null,
            h("caption", null, `${shownCount(each.candidates, "candidate")}${more > 0 ? `, ${more} of them not shown` : ""}`),
            h(
              "thead",
              null,
              h(
                "tr",
                null,
                h("th", { scope: "col" }, "Agent"),
                h("th", { scope: "col", class: "number" }, "Slots in use"),
                h("th", { scope: "col", class: "number" }, "Score"),
              ),
            ),
            h(
              "tbody",
              null,
              each.considered.map((one) => candidate(one, each)),
            ),
          ),
        )
      : null,
    each.left_out.map((out) => {
      const rest = out.count - out.agents.length;
      return h(
        "p",
        { class: "hint" },
        `Left out: ${out.agents.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}: ${out.why}`,
      );
    }),
  );
}

function candidate(one, each) {
  const score = each.scores[one.agent_id];
  return h(
    "tr",
    null,
    h(
      "th",
      { scope: "row", class: "words" },
      one.agent_id,
      one.agent_id === each.agent_id ? [" ", h("span", { class: "badge", "data-mood": "good" }, "chosen")] : null,
    ),
    h("td", { class: "number" }, `${one.in_flight} of ${one.slots}`),
    h("td", { class: "number" }, score === undefined ? "–" : Number(score.toPrecision(6))),
  );
}
