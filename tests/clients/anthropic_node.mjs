// Asks a gateway as a user of the package `@anthropic-ai/sdk` does: node anthropic_node.mjs URL KEY. Prints what it got as JSON.
import Anthropic from "@anthropic-ai/sdk";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const ask = { model: "synthetic", max_tokens: 20, messages: [{ role: "user", content: "hello" }] };
const look = { name: "look", input_schema: { type: "object", properties: { at: { type: "integer" } }, required: ["at"] } };
const found = {};

async function failed(work) {
  try {
    await work();
    return null;
  } catch (error) {
    return { type: error.constructor.name, status: error.status ?? null, kind: error.error?.error?.type ?? null };
  }
}

const whole = await client.messages.create(ask);
found.whole = { text: whole.content[0].text, reason: whole.stop_reason, made: whole.usage.output_tokens };

const streamed = client.messages.stream(ask);
let pieces = 0;
streamed.on("text", () => (pieces += 1));
const message = await streamed.finalMessage();
found.streamed = { text: message.content[0].text, reason: message.stop_reason, made: message.usage.output_tokens };
found.pieces = pieces;

const question = { role: "user", content: "look around" };
const called = await client.messages.create({ ...ask, messages: [question], tools: [look] });
const use = called.content.find((block) => block.type === "tool_use");
const answer = await client.messages.create({
  ...ask,
  tools: [look],
  messages: [
    question,
    { role: "assistant", content: called.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "a tree" }] },
  ],
});
found.tools = [called.stop_reason, use.name, typeof use.input.at, answer.stop_reason];

found.tokens = (await client.messages.countTokens({ model: "synthetic", messages: ask.messages })).input_tokens;
found.unknown_model = await failed(() => client.messages.create({ ...ask, model: "nobody's" }));
found.bad_request = await failed(() => client.messages.create({ ...ask, messages: "text" }));
found.wrong_key = await failed(() => new Anthropic({ baseURL, apiKey: "wrong", maxRetries: 0 }).messages.create(ask));

const aborting = client.messages.stream({ ...ask, max_tokens: 1000 });
aborting.on("text", () => aborting.abort());
found.aborted = await failed(() => aborting.finalMessage());
console.log(JSON.stringify(found));
