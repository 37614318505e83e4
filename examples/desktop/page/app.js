import { cancel, Channel, connect, invoke, listen } from "./tauri.js";

const $ = (id) => document.getElementById(id);
const session = `chat-${Date.now()}`;
let answering = null;

function note(text, kind = "note") {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  $("chat").append(line);
  showNewest();
  return line;
}

// The chat has a height of its own: what is below it stays where it is while an answer grows.
let showing = 0;
function showNewest() {
  showing ||= requestAnimationFrame(() => {
    showing = 0;
    $("chat").scrollTop = $("chat").scrollHeight;
  });
}

// What a command fails with is shown, and nothing else stops.
function on(id, event, action) {
  $(id).addEventListener(event, async (happened) => {
    happened.preventDefault();
    try {
      await action();
    } catch (error) {
      note(error.message, "error");
    }
  });
}

async function showState() {
  const running = await invoke("is_server_running");
  $("state").textContent = running ? "running" : "stopped";
  document.body.dataset.state = running ? "running" : "stopped";
  const usage = await invoke("get_server_metrics");
  $("usage").textContent = usage ? `${usage.cpu_usage} % processor, ${usage.mem_usage} % memory` : "";
}

on("start", "submit", async () => {
  $("state").textContent = "starting";
  try {
    note(
      await invoke("start_llama_server", {
        binaryPath: "",
        modelPath: $("model").value,
        port: 0,
        ctxSize: Number($("context").value),
        nGpuLayers: 0,
      }),
    );
  } finally {
    await showState();
  }
});

on("stop", "click", async () => {
  note(await invoke("stop_llama_server"));
  await showState();
});

on("ask", "submit", async () => {
  const message = $("message").value;
  $("message").value = "";
  note(message, "user");
  const answer = note("", "assistant");
  const onEvent = new Channel((event) => {
    if ("chunk" in event) {
      answer.textContent += event.chunk;
      showNewest();
    }
    if ("thinking" in event) $("state").textContent = event.thinking;
    if ("tool_call" in event) note(`calls ${event.tool_call.name}`);
    if ("status" in event) answer.classList.add(event.status);
  });
  answering = invoke("send_message", {
    sessionId: session,
    message,
    temperature: 0.7,
    maxTokens: Number($("tokens").value),
    onEvent,
  });
  $("cancel").disabled = false;
  try {
    await answering;
  } finally {
    answering = null;
    $("cancel").disabled = true;
    await showState();
  }
});

on("cancel", "click", async () => answering && cancel(answering));

on("clear", "click", async () => {
  await invoke("clear_chat", { sessionId: session });
  $("chat").replaceChildren();
});

on("download", "submit", async () => {
  const entry = await invoke("download_model_from_registry", {
    name: $("name").value,
    registry: $("registry").value,
  });
  $("model").value = entry.model_file_path;
  note(`${entry.full_identifier} is there`);
  await showLibrary();
});

async function showLibrary() {
  const { models } = await invoke("load_model_library");
  $("library").replaceChildren(
    ...models.map((each) => {
      const item = document.createElement("li");
      item.textContent = each.full_identifier;
      return item;
    }),
  );
}

listen("download:progress", ({ payload }) => {
  $("progress").max = payload.total || payload.downloaded;
  $("progress").value = payload.downloaded;
});

listen("model:changed", ({ payload }) => {
  $("state").textContent = payload.status.state;
  if (payload.status.state === "crashed") note(`the server ended: ${payload.status.exit?.reason}`, "error");
});

listen("bridge:ready", async ({ payload }) => {
  const settings = await invoke("load_config");
  $("context").value = settings.contextSize;
  await showLibrary();
  await showState();
  document.body.dataset.ready = payload.version;
});

try {
  await connect((reason) => {
    document.body.dataset.state = "ended";
    $("state").textContent = reason;
  });
} catch (error) {
  note(error.message, "error");
}
