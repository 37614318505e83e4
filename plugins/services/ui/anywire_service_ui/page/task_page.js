// One task: where its time went, its attempts, how its agents were chosen, its text as it comes, and its end.

import { decisionsOf } from "./decisions.js";
import { fill, h, keyed, onFrame, say, set } from "./dom.js";
import { shownMs } from "./format.js";
import { placeOf } from "./places.js";
import { Waterfall, spansOf } from "./waterfall.js";

const MOST_CHARS = 200_000; // of a followed text

export function mountTask(element, api, id) {
  const store = api.store;
  const abort = new AbortController();
  let record = null; // as the API tells it
  let gone = "";
  let asking = false;
  let again = false;

  const badge = h("span", { class: "badge" });
  const why = h("p", { class: "hint" });
  const facts = h("dl", { class: "facts" });
  const waterfall = new Waterfall();
  const apart = h("p", { class: "hint" });
  const attempts = h("tbody");
  const decisions = h("div");
  const told = h("p", { role: "status", class: "hint" });
  const follow = h("button", { type: "button", onclick: () => followText() }, "Follow its text");
  const cancel = h("button", { type: "button", class: "danger", onclick: () => cancelTask() }, "Cancel");
  const text = h("pre", {
    class: "text",
    tabindex: 0,
    role: "region",
    "aria-label": "Text of the task from now on",
    hidden: true,
  });
  fill(
    element,
    h("p", null, h("a", { href: "#/tasks" }, "All tasks")),
    h("h1", null, "Task ", h("code", null, id)),
    h("div", { class: "row" }, badge, follow, cancel),
    why,
    told,
    text,
    h(
      "div",
      { class: "columns" },
      h("section", { class: "card", "aria-label": "Where its time went" }, waterfall.element, apart),
      h("section", { class: "card", "aria-label": "What it is" }, facts),
    ),
    h(
      "div",
      { class: "scroll card", tabindex: 0, role: "region", "aria-label": "Attempts" },
      h(
        "table",
        null,
        h("caption", null, "Attempts"),
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            ["Attempt", "Agent", "Transport", "First token", "Took", "End"].map((each) =>
              h("th", { scope: "col" }, each),
            ),
          ),
        ),
        attempts,
      ),
    ),
    h(
      "section",
      { class: "card", "aria-labelledby": "chosen" },
      h("h2", { id: "chosen" }, "How its agents were chosen"),
      decisions,
    ),
  );

  function draw() {
    const seen = store.state.find(id);
    const task = seen ? { ...record, ...seen } : record;
    if (!task) {
      say(why, gone || "…");
      follow.disabled = cancel.disabled = true;
      return;
    }
    const [word, mood] = placeOf(task);
    say(badge, word);
    set(badge, "data-mood", mood);
    say(
      why,
      [task.why, task.message, task.progress && task.place === "running" && `its agent: ${task.progress}`]
        .filter(Boolean)
        .join(" · "),
    );
    const ended = task.place === "ended";
    follow.disabled = ended || following;
    cancel.disabled = ended;
    const took = ended
      ? (task.took ?? task.age_ms)
      : task.begun === undefined
        ? task.age_ms
        : performance.now() - task.begun;
    drawFacts(facts, task, took);
    waterfall.draw(soFar(spansOf(seen?.stages ? seen : (record ?? {})), task, took));
    say(
      apart,
      seen?.stages?.comparable === false
        ? "The agent runs on another machine, whose clock cannot be compared: the wire is left out."
        : "",
    );
    drawAttempts(attempts, task, record);
  }

  // Ask for the task again; wishes meanwhile are one more question.
  async function ask() {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      record = await api.get(`/v1/tasks/${encodeURIComponent(id)}`, { signal: abort.signal });
      fill(decisions, decisionsOf(record));
    } catch (error) {
      if (error.name === "AbortError") return;
      gone = error.message;
    } finally {
      asking = false;
    }
    drawing.ask();
    if (again) {
      again = false;
      setTimeout(() => !abort.signal.aborted && ask(), 250);
    }
  }

  let following = false;

  async function followText() {
    following = true;
    text.hidden = false;
    text.textContent = "";
    say(told, "Its text from now on:");
    drawing.ask();
    try {
      for await (const { event, data } of api.stream(`/v1/tasks/${encodeURIComponent(id)}/follow`, {
        signal: abort.signal,
      })) {
        if (event === "error") throw new Error(JSON.parse(data).error?.message ?? "it has failed");
        if (event !== "chunk") continue;
        const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
        text.append(JSON.parse(data).text);
        while (text.textContent.length > MOST_CHARS && text.childNodes.length > 1) text.firstChild.remove();
        if (atEnd) text.scrollTop = text.scrollHeight;
      }
      say(told, "It has ended.");
    } catch (error) {
      if (error.name !== "AbortError") say(told, error.message);
    } finally {
      following = false;
      drawing.ask();
    }
  }

  async function cancelTask() {
    cancel.disabled = true;
    try {
      await api.del(`/v1/tasks/${encodeURIComponent(id)}`);
      say(told, "It was cancelled.");
    } catch (error) {
      say(told, error.message);
    }
    ask();
  }

  const drawing = onFrame(draw);
  const unsubscribe = store.subscribe(() => drawing.ask());
  const unhear = store.listen((event) => (event.task_id === id || event.type === "page.behind") && ask());
  const ticking = setInterval(() => drawing.ask(), 1000);
  ask();
  draw();
  return () => {
    abort.abort();
    drawing.stop();
    unsubscribe();
    unhear();
    clearInterval(ticking);
  };
}

// The spans of a task that has not ended, and one to this moment: what its agent measures is told at the end.
function soFar(spans, task, took) {
  if (task.place === "ended") return spans;
  const from = spans.length ? spans.at(-1).from + spans.at(-1).ms : 0;
  const [title, part] = task.place === "running" ? ["At its agent until now", "engine"] : ["Waits until now", "queue"];
  return [...spans, { name: "now", title, part, from, ms: Math.max(0, took - from) }];
}

function drawFacts(list, task, took) {
  const facts = [
    ["Model", task.model],
    ["Kind", task.kind],
    ["Agent", task.agent_id || "none yet"],
    ["Transport", task.transport || "–"],
    ["Time", shownMs(took)],
    ["Chunks", task.chunks],
    ["Tokens", task.tokens ? `${task.prompt_tokens} in, ${task.tokens} out` : "–"],
    ["Priority", task.priority],
    ["Tenant", task.tenant || "–"],
    ["Asked by", task.caller || "–"],
    ["Session", task.session || "–"],
    ["Parent", task.parent || "–"],
  ];
  keyed(
    list,
    facts.flatMap(([name, value]) => [
      [`${name}:`, name, "dt"],
      [name, value, "dd"],
    ]),
    (each) => each[0],
    (each) => h(each[2]),
    (part, each) => say(part, each[1]),
  );
}

// From the choices of its agents, and from what was seen of it while this page was open.
function drawAttempts(body, task, record) {
  const found = new Map();
  const chosen = (record?.decisions ?? []).filter((each) => each.agent_id);
  chosen.forEach((each, at) => {
    const last = at === chosen.length - 1;
    const end = last ? (task.place === "ended" ? placeOf(task)[0] : "runs") : "–";
    found.set(at + 1, {
      number: at + 1,
      agent: each.agent_id,
      transport: last ? task.transport : "–",
      first: null,
      took: null,
      end,
    });
  });
  for (const mark of task.marks ?? []) {
    if (!mark.attempt || mark.type === "task.requeued") continue;
    const known = found.get(mark.attempt) ?? {
      number: mark.attempt,
      agent: "",
      transport: "",
      first: null,
      took: null,
      end: "runs",
    };
    if (mark.type === "task.dispatched") Object.assign(known, { agent: mark.agent_id, transport: mark.transport });
    else if (mark.type === "attempt.streaming") known.first = mark.first_ms;
    else if (mark.type === "attempt.ended")
      Object.assign(known, {
        agent: mark.agent_id,
        transport: mark.transport,
        first: mark.first_ms || null,
        took: mark.total_ms,
        end: mark.error ? `${mark.error} (${mark.origin})` : "answered",
      });
    found.set(mark.attempt, known);
  }
  keyed(
    body,
    [...found.values()],
    (each) => each.number,
    () =>
      h(
        "tr",
        null,
        h("th", { scope: "row" }),
        [0, 1, 2, 3, 4].map(() => h("td")),
      ),
    (row, each) => {
      [
        each.number,
        each.agent,
        each.transport,
        each.first === null ? "–" : shownMs(each.first),
        each.took === null ? "–" : shownMs(each.took),
        each.end,
      ].forEach((value, at) => say(row.children[at], value));
    },
  );
}
