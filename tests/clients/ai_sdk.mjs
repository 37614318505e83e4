// Asks the gateway at argv[2] as users of the Vercel AI SDK do, and prints what it got as JSON.
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const openai = createOpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: 'none' });
const model = openai.responses('synthetic');
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

console.log(
  JSON.stringify({
    whole: whole.text,
    streamed: text,
    tokens: [whole.usage.totalTokens, (await stream.usage).totalTokens],
    reason: await stream.finishReason,
    steps: [called.steps.length, (await streamed.steps).length],
    texts: [called.text, await streamed.text],
    told,
    structured: structured.output,
    warnings: whole.warnings.length + called.warnings.length,
  }),
);
