// The gateway's HTTP API as the page asks it: with the key of who looks, and errors that say what to do.

import { eventsOf } from "./sse.js";

export const BASE = new URL("../", import.meta.url).href.replace(/\/$/, "");
const KEY = "anywire-key"; // kept for this tab alone, and gone with it

const RANKS = ["use", "observe", "operate"];

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

export class Api {
  caller = { id: "", tenant: "", role: "use", needs_key: false };
  base = BASE;
  onSignedOut = () => {};

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  // Whether who looks may do what is for this role.
  may(role) {
    return !role || RANKS.indexOf(this.caller.role) >= RANKS.indexOf(role);
  }

  // An answer of the server with a status below 400. Throws ApiError, also where no server answers; an abort stays one.
  async request(path, { method = "GET", body, headers = {}, signal } = {}) {
    const sent = { ...headers };
    if (/[^\x21-\x7e]/.test(this.key)) throw new ApiError("This is no key: it has other characters.", { status: 401 });
    if (this.key) sent.Authorization = `Bearer ${this.key}`;
    if (body !== undefined) sent["Content-Type"] = "application/json";
    let answer;
    try {
      const text = body === undefined ? undefined : JSON.stringify(body);
      answer = await fetch(BASE + path, { method, headers: sent, body: text, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer.", { code: "unreachable" });
    }
    if (answer.ok) return answer;
    const error = await errorOf(answer);
    if (answer.status === 401 && this.key) this.onSignedOut(error.message);
    throw error;
  }

  async get(path, options) {
    return (await this.request(path, options)).json();
  }

  async post(path, body, options) {
    return (await this.request(path, { ...options, method: "POST", body })).json();
  }

  async del(path, options) {
    return (await this.request(path, { ...options, method: "DELETE" })).json();
  }

  // The server-sent events of an answer, `{event, id, data}` each. `onAnswer` gets the answer with its headers first.
  async *stream(path, { onAnswer, ...options } = {}) {
    const answer = await this.request(path, {
      ...options,
      headers: { Accept: "text/event-stream", ...options.headers },
    });
    onAnswer?.(answer);
    yield* eventsOf(answer.body);
  }

  // Learn who looks. Throws ApiError with the status 401 where a key is needed.
  async recognise() {
    this.caller = await this.get("/v1/caller");
    return this.caller;
  }
}

async function errorOf(answer) {
  let told = {};
  try {
    told = (await answer.json()).error ?? {};
  } catch {
    // no JSON: its status says what there is to say
  }
  const message = typeof told.message === "string" && told.message ? told.message : `The server says ${answer.status}.`;
  const retryAfter = Number(answer.headers.get("retry-after")) || 0;
  return new ApiError(message, { status: answer.status, code: told.code ?? "", retryAfter });
}
