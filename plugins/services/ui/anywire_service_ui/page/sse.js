// Server-sent events of a fetched answer: `EventSource` can send no key.

const MOST_CHARS = 8 * 1024 * 1024; // of one event; a stranger may send without end

// The events of a body as `{event, id, data}`, to its end. Comments are `{event: "comment"}`, so that a reader sees a
// stream that is alive.
export async function* eventsOf(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let fields = { event: "", id: "", data: [] };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      if (text.length > MOST_CHARS) throw new Error("the server sends an event that is too long");
      let end;
      let begin = 0;
      while ((end = text.indexOf("\n", begin)) >= 0) {
        const line = text.slice(begin, end).replace(/\r$/, "");
        begin = end + 1;
        if (line.startsWith(":")) {
          yield { event: "comment", id: "", data: line.slice(1).trim() };
        } else if (line) {
          take(fields, line);
        } else if (fields.data.length || fields.event) {
          yield { event: fields.event || "message", id: fields.id, data: fields.data.join("\n") };
          fields = { event: "", id: "", data: [] };
        }
      }
      text = text.slice(begin);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function take(fields, line) {
  const colon = line.indexOf(":");
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") fields.data.push(value);
  else if (name === "event" || name === "id") fields[name] = value;
}
