// What an app has in Tauri, over the bridge: invoke(command, arguments), Channel, listen(event, callback).
// In a Tauri app the same three come from "@tauri-apps/api", and the app's Rust side passes lines to the sidecar.

const waiting = new Map(); // answers that are waited for, by the id of the call
const channels = new Map(); // channels of calls under way, by their id
const listeners = new Map(); // callbacks by event
let number = 0;
let socket;

export class Channel {
  constructor(onmessage) {
    this.id = `channel-${++number}`;
    this.onmessage = onmessage;
  }
  toJSON() {
    return this.id;
  }
}

export function connect(onclose) {
  const token = location.hash.slice(1);
  socket = new WebSocket(`ws://${location.host}/bridge?token=${encodeURIComponent(token)}`);
  socket.onmessage = ({ data }) => take(JSON.parse(data));
  socket.onclose = ({ reason }) => {
    for (const { reject } of waiting.values()) reject(new Error("the bridge has ended"));
    waiting.clear();
    onclose(reason || "the connection has ended");
  };
  return new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("no connection: open the address that serve.py printed"));
  });
}

// The promise has the member `id`, with which `cancel` ends the call.
export function invoke(method, params = {}) {
  const id = ++number;
  const given = Object.values(params).filter((each) => each instanceof Channel);
  for (const channel of given) channels.set(channel.id, channel);
  const answer = new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
  }).finally(() => given.forEach((channel) => channels.delete(channel.id)));
  answer.id = id;
  return answer;
}

export function cancel(answer) {
  return invoke("cancel", { callId: answer.id });
}

export function listen(event, callback) {
  listeners.set(event, [...(listeners.get(event) ?? []), callback]);
}

function take(message) {
  if (message.method === "channel") {
    channels.get(message.params.channel)?.onmessage(message.params.message);
  } else if (message.method === "event") {
    for (const each of listeners.get(message.params.event) ?? []) each({ payload: message.params.payload });
  } else if (waiting.has(message.id)) {
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    if (message.error) reject(Object.assign(new Error(message.error.message), { code: message.error.code }));
    else resolve(message.result);
  }
}
