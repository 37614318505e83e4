// Asks a gateway as a user of the package `openai` does: node openai_node.mjs URL KEY. Prints what it got as JSON.
import OpenAI, { APIUserAbortError } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "what is it?" }];
const found = {};

async function failed(work) {
  try {
    await work();
    return null;
  } catch (error) {
    return { type: error.constructor.name, status: error.status ?? null, code: error.code ?? null, param: error.param ?? null };
  }
}

const answer = await client.chat.completions.create({ model: "said", messages });
found.chat = { text: answer.choices[0].message.content, reason: answer.choices[0].finish_reason, usage: answer.usage };

found.stream = { text: "", chunks: 0, usage: null };
const stream = await client.chat.completions.create({
  model: "said", messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  found.stream.chunks += 1;
  found.stream.text += chunk.choices[0]?.delta.content ?? "";
  found.stream.usage = chunk.usage ?? found.stream.usage;
}

const helper = client.chat.completions.stream({ model: "said", messages });
found.helper = await helper.finalContent();

const tools = [{ type: "function", function: { name: "look", parameters: { type: "object", properties: {} } } }];
const calling = client.chat.completions.stream({ model: "calls", messages, tools });
const called = (await calling.finalMessage()).tool_calls[0].function;
found.tools = { name: called.name, arguments: called.arguments };
const message = { role: "assistant", content: null, tool_calls: [{ id: "c1", type: "function", function: called }] };
const after = await client.chat.completions.create({
  model: "calls", tools, messages: [...messages, message, { role: "tool", tool_call_id: "c1", content: "seen" }],
});
found.after = after.choices[0].message.content;

const parsed = await client.chat.completions.parse({
  model: "numbers", messages, response_format: zodResponseFormat(z.object({ number: z.number() }), "answer"),
});
found.structured = parsed.choices[0].message.parsed;

const response = await client.responses.create({ model: "said", input: "what is it?" });
found.response = response.output_text;

const aborting = await client.chat.completions.create({ model: "endless", messages, stream: true });
found.aborted = 0;
try {
  for await (const chunk of aborting) {
    found.aborted += chunk.choices.length;
    if (found.aborted >= 3) aborting.controller.abort();
  }
} catch (error) {
  if (!(error instanceof APIUserAbortError)) throw error;
}

const embedded = await client.embeddings.create({ model: "said", input: ["a", "b"] });
found.embeddings = embedded.data.map((each) => each.embedding);

const completed = await client.completions.create({ model: "said", prompt: "once" });
found.completion = completed.choices[0].text;

found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);
found.model = (await client.models.retrieve("said")).id;

found.unknown_model = await failed(() => client.chat.completions.create({ model: "nobody's", messages }));
found.bad_request = await failed(() => client.chat.completions.create({ model: "said", messages: "text" }));
found.wrong_key = await failed(() => new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 }).models.list());
found.forbidden = await failed(() => client.get("/stats"));
found.breaks = await failed(async () => {
  const broken = await client.chat.completions.create({ model: "breaks", messages, stream: true });
  for await (const chunk of broken) void chunk;
});
console.log(JSON.stringify(found));
