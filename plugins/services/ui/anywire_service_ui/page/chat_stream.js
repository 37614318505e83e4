// What a streamed chat brings: its text, how fast it came, what it cost, and where the time went.

const MAX_CHARS = 1_000_000; // of one answer; what comes beyond is counted and not kept
const LEAST_S = 0.05; // for a rate

// Takes one event or comment of the stream after the other. All times are milliseconds of performance.now().
export class ChatAnswer {
  constructor(sent) {
    this.sent = sent;
    this.first = 0;
    this.last = 0;
    this.pieces = 0;
    this.text = "";
    this.reasoning = "";
    this.toolCalls = [];
    this.leftOut = 0;
    this.usage = null;
    this.stages = null;
    this.progress = "";
    this.finish = "";
    this.error = "";
    this.ended = false;
  }

  // An event or comment of sse.js that came at `now`. Returns whether there is something new to show.
  take({ event, data }, now) {
    if (event === "comment") return this.#comment(data);
    if (data === "[DONE]") {
      this.ended = true;
      return true;
    }
    let told;
    try {
      told = JSON.parse(data);
    } catch {
      this.error = "the server sent what is no JSON";
      return true;
    }
    if (told?.error) {
      this.error = String(told.error.message ?? "the answer ended with an error");
      return true;
    }
    if (told?.usage) this.usage = told.usage;
    const choice = told?.choices?.[0];
    if (!choice) return Boolean(told?.usage);
    if (choice.finish_reason) this.finish = String(choice.finish_reason);
    const delta = choice.delta ?? {};
    const reasoning = delta.reasoning_content ?? delta.reasoning;
    if (typeof reasoning === "string" && reasoning) this.reasoning = this.#grown(this.reasoning, reasoning, now);
    if (typeof delta.content === "string" && delta.content) this.text = this.#grown(this.text, delta.content, now);
    for (const call of Array.isArray(delta.tool_calls) ? delta.tool_calls : []) this.#toolCall(call, now);
    return true;
  }

  // Milliseconds from sending to the first token; 0 before it.
  get firstAfter() {
    return this.first ? this.first - this.sent : 0;
  }

  // Tokens of the answer: as the engine counts them, else the pieces that came.
  get tokens() {
    const counted = this.usage?.completion_tokens;
    return Number.isInteger(counted) && counted > 0 ? counted : this.pieces;
  }

  // Tokens in a second from the first one on; 0 where that says nothing: of a burst.
  get rate() {
    const seconds = (this.last - this.first) / 1000;
    return this.tokens > 1 && seconds >= LEAST_S ? (this.tokens - 1) / seconds : 0;
  }

  #comment(text) {
    const progress = /^progress (.*)$/.exec(text);
    if (progress) {
      this.progress = progress[1].slice(0, 200);
      return true;
    }
    const found = /^anywire (\{.*\})$/.exec(text);
    if (!found) return false;
    try {
      this.stages = JSON.parse(found[1]).stages ?? null;
    } catch {
      return false;
    }
    return true;
  }

  #grown(text, piece, now) {
    this.#came(now);
    const room = MAX_CHARS - text.length;
    if (piece.length > room) this.leftOut += piece.length - Math.max(0, room);
    return room > 0 ? text + piece.slice(0, room) : text;
  }

  #toolCall(call, now) {
    this.#came(now);
    const at = Number.isInteger(call?.index) ? call.index : this.toolCalls.length;
    if (at < 0 || at > 63) return;
    const known = (this.toolCalls[at] ??= { id: "", name: "", arguments: "" });
    if (typeof call.id === "string") known.id = call.id;
    if (typeof call.function?.name === "string") known.name += call.function.name;
    if (typeof call.function?.arguments === "string") {
      known.arguments = this.#grown(known.arguments, call.function.arguments, now);
    }
  }

  #came(now) {
    this.first ||= now;
    this.progress = "";
    this.last = now;
    this.pieces += 1;
  }
}
