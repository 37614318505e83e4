// What is known of the fleet: agents, tasks and counters, from lists and from the events after them. Pure: it asks for
// nothing and draws nothing. Times are milliseconds of `now`, a clock of this page: no other machine's clock counts.

export const MOST_TASKS = 4000; // that have not ended
export const MOST_ENDED = 500;
export const MOST_MARKS = 64; // events that are kept of one task
export const MOST_LOST = 50;
export const LOST_MS = 30_000; // for which a lost agent is shown
const RATE_MS = 10_000; // over which what ends is counted
const MOST_COUNTED = 5000;
const ABOUT_AGENTS = /^(agent|link|health|offer)\./;

export class FleetState {
  agents = new Map();
  lost = new Map();
  tasks = new Map();
  ended = new Map();
  stats = null;
  state = "open"; // of the orchestrator
  more = 0; // tasks that have not ended, and are not kept here
  changes = 0; // events about agents
  #done = []; // [time, tokens, failed] of what ended lately

  constructor(now = () => performance.now()) {
    this.now = now;
  }

  // Lists, which are the truth at their time

  // `since` is when each list was asked for: what was told since then is newer.

  takeAgents(list, since = this.now()) {
    const before = this.agents;
    this.agents = new Map();
    for (const each of list) {
      if (this.lost.get(each.id)?.since >= since) continue;
      const known = before.get(each.id);
      this.agents.set(each.id, { ...each, rate: known?.rate ?? 0, chunks: known?.chunks ?? 0 });
      this.lost.delete(each.id);
    }
    for (const [id, each] of before) if (!this.agents.has(id) && !this.lost.has(id)) this.#lose(each, "gone");
  }

  takeTasks(list, more = 0, since = this.now()) {
    const before = this.tasks;
    const now = this.now();
    this.tasks = new Map();
    this.more = more;
    for (const each of list.slice(0, MOST_TASKS)) {
      if (this.ended.get(each.id)?.ended >= since) continue;
      const known = before.get(each.id);
      const told =
        known?.changed >= since ? { ...each, ...known, chunks: each.chunks } : { marks: [], ...known, ...each };
      this.tasks.set(each.id, { ...told, listed: each.chunks, begun: known?.begun ?? now - each.age_ms });
      this.ended.delete(each.id);
    }
    for (const [id, each] of before) if (each.changed >= since && !this.tasks.has(id)) this.tasks.set(id, each);
    this.more += Math.max(0, list.length - MOST_TASKS);
  }

  takeStats(stats) {
    this.stats = stats;
  }

  // Count what came since the last lists: chunks a second of each agent and of each transport.
  countRates(before, seconds) {
    for (const agent of this.agents.values()) agent.rate = 0;
    for (const task of this.tasks.values()) {
      const earlier = before.get(task.id);
      const came = task.chunks - (earlier && earlier.attempt === task.attempt ? earlier.chunks : 0);
      const agent = this.agents.get(task.agent_id);
      if (agent && came > 0) agent.rate += came / seconds;
    }
    for (const agent of this.agents.values()) {
      agent.rate += agent.chunks / seconds;
      agent.chunks = 0;
    }
  }

  // Events. Returns whether the lists must be asked for again.

  apply(event) {
    if (ABOUT_AGENTS.test(event.type)) this.changes += 1;
    const on = this[`_${event.type.replaceAll(".", "_")}`];
    return on ? on.call(this, event) === true : false;
  }

  _task_admitted(event) {
    if (this.tasks.has(event.task_id) || this.ended.has(event.task_id)) return;
    if (this.tasks.size >= MOST_TASKS) {
      this.more += 1;
      return;
    }
    this.tasks.set(event.task_id, {
      id: event.task_id,
      kind: event.kind,
      model: event.model,
      place: "queued",
      why: "",
      agent_id: "",
      transport: "",
      attempt: 1,
      chunks: 0,
      priority: event.priority,
      session: event.session,
      parent: event.parent,
      tenant: event.tenant,
      caller: event.caller,
      begun: this.now(),
      changed: this.now(),
      marks: [mark(event)],
    });
  }

  _task_held(event) {
    this.#change(event, (task) => Object.assign(task, { place: "held", why: event.why }));
  }

  _task_requeued(event) {
    this.#change(event, (task) =>
      Object.assign(task, {
        place: "queued",
        why: `after ${event.error}`,
        agent_id: "",
        transport: "",
        attempt: event.attempt,
        chunks: 0,
      }),
    );
  }

  _task_preempted(event) {
    this.#change(event, (task) =>
      Object.assign(task, { place: "queued", why: "gave its slot to an urgent task", agent_id: "", transport: "" }),
    );
  }

  _task_fell_back(event) {
    this.#change(event, (task) => Object.assign(task, { model: event.model }));
  }

  _task_dispatched(event) {
    this.#change(event, (task) => {
      Object.assign(task, {
        place: "running",
        why: "",
        agent_id: event.agent_id,
        transport: event.transport,
        attempt: event.attempt,
        model: event.model,
      });
      const agent = this.agents.get(event.agent_id);
      if (!agent) return;
      agent.load.in_flight += 1;
      agent.load.active += 1;
    });
  }

  _attempt_streaming(event) {
    this.#change(event, (task) => Object.assign(task, { streaming: true }));
  }

  _attempt_progress(event) {
    this.#change(event, (task) => Object.assign(task, { progress: event.detail || event.state }));
  }

  _attempt_ended(event) {
    this.#change(event, () => {});
    const agent = this.agents.get(event.agent_id);
    if (!agent) return;
    agent.load.in_flight = Math.max(0, agent.load.in_flight - 1);
    agent.load.active = Math.max(0, agent.load.active - 1);
    agent.chunks += Math.max(0, event.chunks - (this.find(event.task_id)?.listed ?? 0));
  }

  _task_ended(event) {
    const known = this.tasks.get(event.task_id);
    const marks = [...(known?.marks ?? []), mark(event)].slice(-MOST_MARKS);
    const now = this.now();
    const {
      error,
      message,
      origin,
      model,
      agent_id,
      transport,
      tokens,
      prompt_tokens,
      stages,
      first_ms,
      attempts,
      chunks,
    } = event;
    const task = {
      kind: event.kind,
      priority: event.priority,
      session: event.session,
      parent: event.parent,
      tenant: event.tenant,
      caller: event.caller,
      ...known,
    };
    Object.assign(task, {
      id: event.task_id,
      place: "ended",
      why: "",
      error,
      message,
      origin,
      model,
      agent_id,
      transport,
    });
    Object.assign(task, { tokens, prompt_tokens, stages, first_ms, attempt: attempts, chunks, marks, ended: now });
    task.took = (event.at_ns - stages.received) / 1e6;
    task.begun ??= now - task.took;
    this.tasks.delete(event.task_id);
    if (!known && this.more) this.more -= 1;
    this.ended.delete(event.task_id);
    this.ended.set(event.task_id, task);
    if (this.ended.size > MOST_ENDED) this.ended.delete(this.ended.keys().next().value);
    this.#done.push([now, tokens, Boolean(error)]);
    if (this.#done.length > MOST_COUNTED) this.#done.splice(0, MOST_COUNTED / 2);
  }

  _agent_joined(event) {
    this.lost.delete(event.agent_id);
    return true;
  }

  _agent_changed(event) {
    const agent = this.agents.get(event.agent_id);
    if (!agent) return true;
    Object.assign(agent, { state: event.state, slots: event.slots, detail: event.detail });
    return agent.models.join("\n") !== event.models.join("\n");
  }

  _agent_lost(event) {
    const agent = this.agents.get(event.agent_id);
    if (!agent) return;
    this.agents.delete(event.agent_id);
    this.#lose(agent, event.reason);
  }

  _link_up() {
    return true;
  }

  _link_lost() {
    return true;
  }

  _health_changed(event) {
    const agent = this.agents.get(event.agent_id);
    if (!agent) return true;
    const { state, reason, evidence, trips, retry_in_ms } = event;
    if (event.transport) agent.health = { ...agent.health, links: { ...agent.health.links, [event.transport]: state } };
    else if (event.model) agent.health = { ...agent.health, models: { ...agent.health.models, [event.model]: state } };
    else agent.health = { ...agent.health, state, reason, evidence, trips, retry_in_ms };
    return true;
  }

  _agent_ordered(event) {
    const agent = this.agents.get(event.agent_id);
    if (agent) agent.health = { ...agent.health, order: event.order, reason: event.reason };
    return true;
  }

  _agent_slow_start(event) {
    const agent = this.agents.get(event.agent_id);
    if (agent) agent.health = { ...agent.health, slow_start: event.given < event.slots ? event.given : 0 };
  }

  _offer_changed() {
    return true;
  }

  _orchestrator_changed(event) {
    this.state = event.state;
  }

  // What follows from it

  // Forget agents that were lost long ago. Returns whether there were any.
  forgetLost() {
    const now = this.now();
    const before = this.lost.size;
    for (const [id, each] of this.lost)
      if (now - each.since > LOST_MS || this.lost.size > MOST_LOST) this.lost.delete(id);
    return this.lost.size !== before;
  }

  // Tasks and tokens a second, and the share that failed, over the last seconds.
  rates() {
    const now = this.now();
    while (this.#done.length && now - this.#done[0][0] > RATE_MS) this.#done.shift();
    const seconds = RATE_MS / 1000;
    const tokens = this.#done.reduce((sum, each) => sum + each[1], 0);
    const failed = this.#done.filter((each) => each[2]).length;
    return {
      tasks: this.#done.length / seconds,
      tokens: tokens / seconds,
      failed: this.#done.length ? failed / this.#done.length : 0,
    };
  }

  find(id) {
    return this.tasks.get(id) ?? this.ended.get(id);
  }

  #change(event, change) {
    // An attempt may end after its task.
    const task = event.type === "attempt.ended" ? this.find(event.task_id) : this.tasks.get(event.task_id);
    if (!task) return;
    task.marks.push(mark(event));
    if (task.marks.length > MOST_MARKS) task.marks.splice(1, task.marks.length - MOST_MARKS);
    task.changed = this.now();
    change(task);
  }

  #lose(agent, reason) {
    this.lost.set(agent.id, { ...agent, state: "lost", since: this.now(), reason });
  }
}

// What a task's history keeps of an event.
function mark(event) {
  const { type, at_ns, attempt, agent_id, transport, error, why, first_ms, total_ms, origin, state, detail } = event;
  return { type, at: at_ns / 1e6, attempt, agent_id, transport, error, why, first_ms, total_ms, origin, state, detail };
}
