// How agents do, in words and moods: the word says it, the mood colours it.

const STATES = {
  open: ["failing", "bad"],
  half_open: ["tried again", "warn"],
  quarantined: ["quarantined", "bad"],
};
const ORDERS = { drained: ["drained", "warn"], isolated: ["isolated", "warn"] };

// The word and the mood of an agent, and whether somebody should look at it.
export function conditionOf(agent) {
  if (agent.state === "lost") return { word: "lost", mood: "bad", unwell: true };
  if (agent.state === "failed") return { word: "failed", mood: "bad", unwell: true };
  const health = agent.health ?? {};
  const [word, mood] = STATES[health.state] ?? ORDERS[health.order] ?? [];
  if (word) return { word, mood, unwell: true };
  if (agent.state === "draining") return { word: "draining", mood: "warn", unwell: false };
  if (agent.state === "starting") return { word: "starting", mood: "busy", unwell: false };
  if (Object.keys(health.links ?? {}).some((each) => health.links[each] !== "closed"))
    return { word: "a link fails", mood: "warn", unwell: true };
  if (Object.keys(health.models ?? {}).some((each) => health.models[each] !== "closed"))
    return { word: "a model fails", mood: "warn", unwell: true };
  if (health.slow_start) return { word: "slow start", mood: "busy", unwell: false };
  if (usedSlots(agent) >= agent.slots) return { word: "busy", mood: "busy", unwell: false };
  return { word: "ready", mood: "good", unwell: false };
}

export function usedSlots(agent) {
  return Math.max(agent.load?.in_flight ?? 0, agent.load?.active ?? 0);
}

// Why an agent is as it is, for a person; empty while all is well.
export function reasonOf(agent) {
  if (agent.state === "lost") return agent.reason ?? "";
  const health = agent.health ?? {};
  const parts = [health.reason, agent.state === "failed" ? agent.detail : ""];
  const evidence = Object.entries(health.evidence ?? {}).map(([code, count]) => `${count} × ${code}`);
  if (evidence.length) parts.push(evidence.join(", "));
  if (health.retry_in_ms) parts.push(`tried next in ${Math.ceil(health.retry_in_ms / 1000)} s`);
  for (const [kind, states] of [
    ["link", health.links],
    ["model", health.models],
  ]) {
    for (const [name, state] of Object.entries(states ?? {}))
      if (state !== "closed") parts.push(`${kind} ${name}: ${STATES[state]?.[0] ?? state}`);
  }
  return [...new Set(parts.filter(Boolean))].join("; ");
}
