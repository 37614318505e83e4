// Commands to agents, as `POST /v1/agents/{id}/commands/{name}` takes them.

import { ApiError } from "./api.js";

// The results of a command as they come. `deadline` are the seconds that it may take, 0 for any time. Throws ApiError,
// also where the stream breaks off: what was asked may have been done then.
export async function* commanded(api, agentId, name, args = {}, { signal, deadline } = {}) {
  const query = deadline === undefined ? "" : `?deadline=${deadline}`;
  const path = `/v1/agents/${encodeURIComponent(agentId)}/commands/${encodeURIComponent(name)}${query}`;
  try {
    for await (const { event, data } of api.stream(path, { method: "POST", body: args, signal })) {
      if (event === "comment") continue;
      if (event === "end") return;
      if (event === "error") throw errorIn(data);
      yield JSON.parse(data);
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
  }
  throw new ApiError("The connection was lost. What was asked may have been done.", { code: "broken_off" });
}

// All results of a command that tells lists in pieces: `lists` go on from piece to piece, of others the newest counts.
export async function collected(api, agentId, name, args, lists, options) {
  const whole = Object.fromEntries(lists.map((each) => [each, []]));
  for await (const piece of commanded(api, agentId, name, args, options)) {
    for (const [member, value] of Object.entries(piece)) {
      if (lists.includes(member)) whole[member].push(...value);
      else whole[member] = value;
    }
  }
  return whole;
}

function errorIn(data) {
  try {
    const { message, code } = JSON.parse(data).error;
    return new ApiError(String(message), { code: String(code ?? "") });
  } catch {
    return new ApiError("The command failed.");
  }
}
