// Keeps what is known of the fleet up to date: lists when it begins and now and then, events in between.

import { FleetState } from "./fleet_state.js";

const GATHERED_MS = 50; // for which the server gathers events: what happens is shown within a quarter of a second
const POLL_MS = 2000;
const MOST_LISTED = 2000; // tasks in one list
const SILENT_MS = 90_000; // after which a stream without a word counts as lost
const BEHIND = { type: "page.behind" };
const TYPES =
  "task.*,attempt.streaming,attempt.progress,attempt.ended,agent.*,link.*,health.*,offer.*,orchestrator.*,plugin.*,key.*";

export class Store {
  state = new FleetState();
  connection = "waiting"; // "live", or "lost"
  onConnection = () => {};
  #api;
  #changed = new Set();
  #listening = new Set();
  #abort = null;
  #paused = false;
  #poll = 0;
  #last = ""; // id of the newest event
  #stale = false;
  #asking = null;
  #asked = 0;
  #readAt = 0; // when the lists came, 0 before
  #lived = false; // whether it was connected since it was started

  constructor(api) {
    this.#api = api;
  }

  // Call `changed` after each change, also many times a frame: draw with `onFrame`. Returns what ends that.
  subscribe(changed) {
    this.#changed.add(changed);
    return () => this.#changed.delete(changed);
  }

  // Call `heard` with each event, and with `{type: "page.behind"}` when some may have been missed: after a connection was
  // lost, or the server was started anew. Returns what ends that.
  listen(heard) {
    this.#listening.add(heard);
    return () => this.#listening.delete(heard);
  }

  start() {
    this.stop();
    this.state = new FleetState();
    this.#last = "";
    this.#readAt = 0;
    this.#lived = false;
    this.#begin();
  }

  stop() {
    this.pause();
    this.#paused = false;
  }

  // Ask for nothing until `resume`, which goes on where this was.
  pause() {
    if (!this.#abort) return;
    this.#paused = true;
    this.#abort.abort();
    this.#abort = null;
    clearInterval(this.#poll);
  }

  resume() {
    if (this.#paused) this.#begin();
  }

  #begin() {
    this.#paused = false;
    this.#connect("waiting", "");
    this.#abort = new AbortController();
    this.#follow(this.#abort.signal);
    this.#poll = setInterval(() => this.#tick(), POLL_MS);
  }

  // Ask for the lists again soon; several wishes are one question.
  refresh() {
    this.#stale = true;
    if (this.#asking || !this.#abort) return;
    const wait = Math.max(0, this.#asked + 250 - performance.now());
    this.#asking = new Promise((done) => setTimeout(done, wait)).then(() => this.#ask());
  }

  async #ask() {
    const abort = this.#abort;
    this.#stale = false;
    this.#asked = performance.now();
    try {
      if (abort) await this.#read(abort.signal);
    } catch (error) {
      // What the page says already, or the stream of events will.
      const isKnown = error.name === "AbortError" || error.code === "unreachable" || error.status === 401;
      if (!isKnown) console.warn(error.message);
    } finally {
      this.#asking = null;
      if (this.#stale && this.#abort) this.refresh();
    }
  }

  // Read the lists. What happens meanwhile is told by events, and by the next lists.
  async #read(signal) {
    const api = this.#api;
    const since = this.#readAt;
    const began = performance.now();
    const changes = this.state.changes;
    const observes = api.may("observe");
    const asked = [api.get(`/v1/tasks?limit=${MOST_LISTED}`, { signal })];
    if (observes) asked.push(api.get("/v1/agents", { signal }), api.get("/v1/stats", { signal }));
    const [tasks, agents, stats] = await Promise.all(asked);
    const before = this.state.tasks;
    if (agents) this.state.takeAgents(agents.data, began);
    this.state.takeTasks(tasks.data, tasks.more ?? 0, began);
    if (stats) this.state.takeStats(stats);
    this.#readAt = performance.now();
    if (since) this.state.countRates(before, (this.#readAt - since) / 1000);
    // What was told meanwhile may be newer than the lists.
    if (changes !== this.state.changes) this.refresh();
    this.#tell();
  }

  #tick() {
    if (this.state.forgetLost()) this.#tell();
    // A list costs the server by its length: the longer it is, the less often.
    const due = POLL_MS * Math.max(1, this.state.tasks.size / 500);
    if (performance.now() - this.#asked >= due * 0.9) this.refresh();
  }

  async #follow(signal) {
    let wait = 500;
    while (!signal.aborted) {
      let why = "the server has ended the stream";
      try {
        await this.#hear(signal, () => (wait = 500));
      } catch (error) {
        why = error.message;
        if (error.status === 401 || error.status === 403) wait = 8000;
      }
      if (signal.aborted) return;
      this.#connect("lost", why);
      await new Promise((done) => setTimeout(done, wait));
      wait = Math.min(2 * wait, 8000);
    }
  }

  async #hear(signal, connected) {
    const own = new AbortController();
    const end = () => own.abort();
    signal.addEventListener("abort", end, { once: true });
    let silent = setTimeout(end, SILENT_MS);
    try {
      const after = this.#last ? `&after=${encodeURIComponent(this.#last)}` : "";
      const path = `/v1/events?types=${TYPES}&gather=${GATHERED_MS}${after}`;
      for await (const { event, id, data } of this.#api.stream(path, { signal: own.signal })) {
        clearTimeout(silent);
        silent = setTimeout(end, SILENT_MS);
        if (this.connection !== "live") {
          connected();
          this.#connect("live", "");
          this.refresh();
          if (this.#lived) this.#hearAll(BEHIND);
          this.#lived = true;
        }
        if (event === "comment") continue;
        if (event === "error") throw new Error(JSON.parse(data).error?.message ?? "refused");
        if (event === "reset" || event === "missed") {
          this.refresh();
          this.#hearAll(BEHIND);
          continue;
        }
        if (id) this.#last = id;
        this.#take(JSON.parse(data));
      }
    } catch (error) {
      if (error.name === "AbortError" && !signal.aborted) throw new Error("the server is silent");
      throw error;
    } finally {
      clearTimeout(silent);
      signal.removeEventListener("abort", end);
      own.abort();
    }
  }

  #take(event) {
    if (this.state.apply(event)) this.refresh();
    this.#hearAll(event);
    this.#tell();
  }

  #hearAll(event) {
    for (const heard of this.#listening) {
      try {
        heard(event);
      } catch (error) {
        console.error(error);
      }
    }
  }

  #connect(state, why) {
    this.connection = state;
    this.onConnection(state, why);
  }

  #tell() {
    for (const changed of this.#changed) changed();
  }
}
