// A chat as it is sent: its body and headers from what the form says, and the same as a command and as a program.

export const NUMBERS = ["temperature", "top_p", "max_tokens", "seed", "presence_penalty", "frequency_penalty"];
const MAX_PREFERRED = 64; // of the header x-anywire-prefer

// The body of a chat. `form` has texts; what is empty is left out. Throws an Error that names a field that is wrong.
export function chatBody(form, messages) {
  const body = { model: form.model, messages: [...messages], stream: true, stream_options: { include_usage: true } };
  if (form.system?.trim()) body.messages.unshift({ role: "system", content: form.system });
  for (const name of NUMBERS) {
    const text = form[name]?.trim();
    if (!text) continue;
    const value = Number(text);
    if (!Number.isFinite(value)) throw new Error(`${name} must be a number, not “${text}”`);
    body[name] = value;
  }
  const stops = (form.stop ?? "").split("\n").filter((each) => each !== "");
  if (stops.length) body.stop = stops;
  if (form.json) body.response_format = { type: "json_object" };
  return body;
}

// The headers of a chat beside its key and type. `preferred` are ids of agents.
export function chatHeaders(form, preferred) {
  const headers = { "x-anywire-stages": "true", "x-anywire-progress": "true" };
  const named = preferred.filter(canStandInHeader).slice(0, MAX_PREFERRED);
  if (named.length) headers["x-anywire-prefer"] = named.join(",");
  if (form.timeout?.trim()) headers["x-anywire-timeout"] = form.timeout.trim();
  if (form.priority?.trim()) headers["x-anywire-priority"] = form.priority.trim();
  return headers;
}

// The agents that a place stands for: "" any, "transport:NAME", "agent:ID". `agents` are those of /v1/agents.
export function agentsAt(place, agents) {
  const [kind, name] = [place.slice(0, place.indexOf(":")), place.slice(place.indexOf(":") + 1)];
  if (kind === "agent") return [name];
  if (kind === "transport") return agents.filter((each) => each.transport === name).map((each) => each.id);
  return [];
}

// The request as a command of a shell. The key stays in its environment.
export function asCurl(url, headers, body, withKey) {
  const lines = [`curl -N ${quoted(url)}`, "-H 'content-type: application/json'"];
  for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (withKey) lines.push('-H "authorization: Bearer $ANYWIRE_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

// The request as a Python program that uses OpenAI's client.
export function asPython(base, headers, body, withKey) {
  const key = withKey ? 'os.environ["ANYWIRE_API_KEY"]' : '"none"';
  const members = Object.entries(body).map(([name, value]) => `    ${name}=${python(value, 4)},`);
  return [
    ...(withKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(base, 0)}, api_key=${key})`,
    "chunks = client.chat.completions.create(",
    ...members,
    `    extra_headers=${python(headers, 4)},`,
    ")",
    "for chunk in chunks:",
    "    if chunk.choices and chunk.choices[0].delta.content:",
    '        print(chunk.choices[0].delta.content, end="", flush=True)',
    "print()",
    "",
  ].join("\n");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// A value as Python writes it: JSON's texts are Python's, but for the three words and for half of a pair.
function python(value, indent) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const parts = list
    ? value.map((each) => python(each, indent + 4))
    : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, indent + 4)}`);
  const [open, close] = list ? "[]" : "{}";
  const line = `${open}${parts.join(", ")}${close}`;
  if (line.length + indent <= 100 && !line.includes("\n")) return line;
  const space = " ".repeat(indent);
  return `${open}\n${parts.map((each) => `${space}    ${each},`).join("\n")}\n${space}${close}`;
}

// Whether an id can be told in a header, in a list that commas divide.
function canStandInHeader(text) {
  return /^[\x21-\x2b\x2d-\x7e]+$/.test(text);
}
