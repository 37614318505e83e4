// Asks the gateway at argv[2] as users of the Vercel AI SDK do, over responses and over chats, and prints what it got as
// JSON.
import { createOpenAI } from '@ai-sdk/openai';
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const openai = createOpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: 'none' });
const found = {};

async function asked(model) {
  const told = [];
  const weather = tool({
    description: 'The weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      told.push(city);
      return 'sunny';
    },
  });
  const tools = { tools: { weather }, stopWhen: stepCountIs(3) };

  const whole = await generateText({ model, prompt: 'hello' });
  const stream = streamText({ model, prompt: 'hello' });
  let text = '';
  for await (const piece of stream.textStream) text += piece;
  const called = await generateText({ model, prompt: 'weather please', ...tools });
  const streamed = streamText({ model, prompt: 'weather please', ...tools });
  for await (const _ of streamed.textStream);
  const structured = await generateText({
    model,
    prompt: 'hello',
    output: Output.object({ schema: z.object({ number: z.number() }) }),
  });
  return {
    whole: whole.text,
    streamed: text,
    tokens: [whole.usage.totalTokens, (await stream.usage).totalTokens],
    reason: await stream.finishReason,
    steps: [called.steps.length, (await streamed.steps).length],
    texts: [called.text, await streamed.text],
    told,
    structured: structured.output,
    warnings: whole.warnings.length + called.warnings.length,
  };
}

found.responses = await asked(openai.responses('synthetic'));
found.chats = await asked(openai.chat('synthetic'));

const { embeddings } = await embedMany({ model: openai.embedding('synthetic'), values: ['a', 'b'] });
found.embeddings = embeddings.map((each) => each.length);

try {
  await generateText({ model: openai.chat('nobodys'), prompt: 'hello', maxRetries: 0 });
} catch (error) {
  if (!APICallError.isInstance(error)) throw error;
  found.failed = { status: error.statusCode, retryable: error.isRetryable };
}

const leaving = new AbortController();
found.pieces = 0;
const endless = streamText({
  model: openai.chat('endless'), prompt: 'hello', abortSignal: leaving.signal, onError: () => {},
});
for await (const _ of endless.textStream) {
  found.pieces += 1;
  if (found.pieces === 3) leaving.abort();
}

console.log(JSON.stringify(found));
