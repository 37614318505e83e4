"""The package `openai`: chats, tools, structured output, responses, embeddings, errors."""

import json
import sys
from typing import Any

from common import ENDLESS, MODEL, NOBODYS, PIECES, Answer, cities, failed, weather
from openai import OpenAI

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def main(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    chats = client.chat.completions
    whole = chats.create(model=MODEL, messages=HELLO)
    with chats.stream(model=MODEL, messages=HELLO) as stream:
        streamed = "".join(event.delta for event in stream if event.type == "content.delta")
    asked: list[Any] = [{"role": "user", "content": "weather please"}]
    message = chats.create(model=MODEL, messages=asked, tools=[TOOL]).choices[0].message
    call = message.tool_calls[0]
    result = weather(**json.loads(call.function.arguments))
    asked += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    after = chats.create(model=MODEL, messages=asked, tools=[TOOL]).choices[0].message.content
    parsed = chats.parse(model=MODEL, messages=HELLO, response_format=Answer).choices[0].message.parsed
    vectors = client.embeddings.create(model=MODEL, input=["a", "b"])
    pieces = 0
    for _ in (endless := chats.create(model=ENDLESS, messages=HELLO, stream=True)):
        pieces += 1
        if pieces == PIECES:
            break
    endless.close()
    response = client.responses.create(model=MODEL, input="hello")
    further = client.responses.create(model=MODEL, input="and?", previous_response_id=response.id)
    of_response = client.responses.parse(model=MODEL, input="hello", text_format=Answer).output_parsed
    with client.responses.stream(model=MODEL, input="hello") as events:
        types = [event.type for event in events]
    found = {
        "whole": whole.choices[0].message.content,
        "streamed": streamed,
        "cities": cities,
        "after": after,
        "structured": [parsed.number, of_response.number],
        "embeddings": [len(each.embedding) for each in vectors.data],
        "failed": failed(lambda: chats.create(model=NOBODYS, messages=HELLO)),
        "pieces": pieces,
        "responses": [response.output_text, types[-1], further.usage.input_tokens > response.usage.input_tokens],
        "models": [each.model_extra["kinds"] for each in client.models.list() if each.id == MODEL],
    }
    print(json.dumps(found))


main(sys.argv[1])
