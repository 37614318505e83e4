// The fleet as a picture: the orchestrator in the middle, its agents around it, links coloured by transport. It is for
// eyes alone; the table beneath says the same.

import { keyed, s, say, set } from "./dom.js";
import { conditionOf, usedSlots } from "./health.js";
import { placesOf } from "./layout.js";
import { shortId } from "./format.js";

export const TRANSPORTS = ["dds", "zeromq", "http", "grpc", "nats", "memory"];
const MOST_BELOW = 16; // agents of a child orchestrator that are drawn

export class Picture {
  #links = s("g", { class: "links" });
  #nodes = s("g", { class: "nodes" });
  #hub = s(
    "g",
    { class: "hub" },
    s("rect", { x: -56, y: -19, width: 112, height: 38, rx: 9 }),
    s("text", { y: 5, "text-anchor": "middle" }, "orchestrator"),
  );
  #known = "";
  #layout = null;
  #size = [0, 0];

  // `chosen` is called with the id of the agent that is clicked.
  constructor(chosen) {
    this.element = s(
      "svg",
      { class: "fleet", role: "img", "aria-label": "The fleet" },
      this.#links,
      this.#hub,
      this.#nodes,
    );
    this.#nodes.addEventListener("click", (event) => {
      const node = event.target.closest("[data-id]");
      if (node) chosen(node.dataset.id);
    });
  }

  // `below` has the agents of agents that are orchestrators themselves, by id.
  draw(state, below, selected) {
    const agents = [...state.agents.values(), ...state.lost.values()].sort(byHost);
    this.#place(agents);
    const { places, radius, labels } = this.#layout;
    const shown = agents.filter((each) => places.has(each.id));
    const [width, height] = this.#size;
    const thin = labels ? 1 : 0.5; // many links would be a blot
    set(this.#hub, "transform", `translate(${width / 2} ${height / 2})`);
    keyed(
      this.#links,
      shown,
      (each) => each.id,
      () => s("line"),
      (line, each) => {
        const at = places.get(each.id);
        set(line, "x1", width / 2);
        set(line, "y1", height / 2);
        set(line, "x2", at.x.toFixed(1));
        set(line, "y2", at.y.toFixed(1));
        set(line, "class", `link ${transportClass(each.transport)}${each.state === "lost" ? " lost" : ""}`);
        set(line, "stroke-width", (thin * (1 + Math.min(5, Math.log2(1 + (each.rate ?? 0))))).toFixed(1));
      },
    );
    keyed(
      this.#nodes,
      shown,
      (each) => each.id,
      makeNode,
      (node, each) =>
        this.#drawNode(node, each, places.get(each.id), radius, labels, below.get(each.id), each.id === selected),
    );
    const unwell = agents.filter((each) => conditionOf(each).unwell).length;
    set(
      this.element,
      "aria-label",
      `The fleet: an orchestrator and ${state.agents.size} agents, ${unwell} of them not well. The table below lists them.`,
    );
  }

  #place(agents) {
    const box = this.element.getBoundingClientRect();
    const width = Math.max(300, Math.round(box.width));
    const height = Math.max(260, Math.round(box.height));
    const known = `${width} ${height} ${agents.map((each) => each.id).join("\n")}`;
    if (known === this.#known) return;
    this.#known = known;
    this.#size = [width, height];
    this.#layout = placesOf(
      agents.map((each) => each.id),
      width,
      height,
    );
    set(this.element, "viewBox", `0 0 ${width} ${height}`);
  }

  #drawNode(node, agent, at, radius, labels, below, selected) {
    const { word, mood } = conditionOf(agent);
    const [disc, arc, cross, label, title, satellites] = node.children;
    const used = usedSlots(agent);
    const size = below ? radius * 1.35 : radius;
    set(node, "transform", `translate(${at.x.toFixed(1)} ${at.y.toFixed(1)})`);
    set(node, "class", `node ${mood}${selected ? " selected" : ""}${agent.state === "lost" ? " lost" : ""}`);
    set(disc, "r", size);
    set(arc, "r", size);
    set(arc, "stroke-width", Math.max(2, size * 0.3).toFixed(1));
    const length = 2 * Math.PI * size;
    set(
      arc,
      "stroke-dasharray",
      `${((length * Math.min(used, agent.slots)) / Math.max(1, agent.slots)).toFixed(1)} ${length.toFixed(1)}`,
    );
    const half = size * 0.45;
    set(
      cross,
      "d",
      agent.state === "lost" ? `M${-half} ${-half}L${half} ${half}M${half} ${-half}L${-half} ${half}` : "",
    );
    say(label, labels ? shortId(agent.id, radius > 16 ? 16 : 12) : "");
    // Away from the middle, where its link comes from; the agents below it are there.
    const isAbove = at.y < this.#size[1] / 2 - size;
    set(label, "y", (isAbove === Boolean(below) ? size + 16 : -size - 8).toFixed(0));
    say(title, `${agent.id} · ${word} · ${used} of ${agent.slots} slots · ${agent.transport}`);
    drawBelow(satellites, below, size, at.angle);
  }
}

function makeNode(agent) {
  return s(
    "g",
    { "data-id": agent.id },
    s("circle", { class: "disc" }),
    s("circle", { class: "arc", transform: "rotate(-90)" }),
    s("path", { class: "cross" }),
    s("text", { "text-anchor": "middle" }),
    s("title"),
    s("g", { class: "below" }),
  );
}

// The agents of a child orchestrator, in a fan that points away from the middle.
function drawBelow(group, below, size, angle) {
  const shown = (below ?? []).slice(0, MOST_BELOW);
  const step = Math.min(0.42, (Math.PI * 1.2) / Math.max(1, shown.length));
  const distance = size * 2.1;
  keyed(
    group,
    shown,
    (each) => each.id,
    () => s("g", null, s("line"), s("circle"), s("title")),
    (part, each) => {
      const at = angle + (shown.indexOf(each) - (shown.length - 1) / 2) * step;
      const [x, y] = [distance * Math.cos(at), distance * Math.sin(at)];
      const [line, circle, title] = part.children;
      set(line, "x2", x.toFixed(1));
      set(line, "y2", y.toFixed(1));
      set(line, "class", `link ${transportClass(each.transport)}`);
      set(circle, "cx", x.toFixed(1));
      set(circle, "cy", y.toFixed(1));
      set(circle, "r", Math.max(3, size * 0.3).toFixed(1));
      set(circle, "class", conditionOf(each).mood);
      say(title, `${each.id} · ${conditionOf(each).word}`);
    },
  );
}

function byHost(one, other) {
  return (one.host ?? "").localeCompare(other.host ?? "") || one.id.localeCompare(other.id, "en", { numeric: true });
}

export function transportClass(transport) {
  return `t-${TRANSPORTS.includes(transport) ? transport : "other"}`;
}

// A sample of a link as it is drawn for a transport.
export function linkSample(transport) {
  return s(
    "svg",
    { class: "sample", width: 34, height: 10, "aria-hidden": "true" },
    s("line", { class: `link ${transportClass(transport)}`, x1: 1, y1: 5, x2: 33, y2: 5, "stroke-width": 3 }),
  );
}
