"""The SDK of LiteLLM, with the provider `openai` at another address."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches prices from elsewhere

import litellm
from common import ENDLESS, MODEL, NOBODYS, PIECES, Answer, cities, failed, weather

litellm.suppress_debug_info = True  # printed beside what is found

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def main(url: str) -> None:
    reach = {"api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
    named = {"model": f"openai/{MODEL}", **reach}
    whole = litellm.completion(messages=HELLO, **named)
    streamed = litellm.completion(messages=HELLO, stream=True, **named)
    asked = [{"role": "user", "content": "weather please"}]
    message = litellm.completion(messages=asked, tools=[TOOL], **named).choices[0].message
    call = message.tool_calls[0]
    result = weather(**json.loads(call.function.arguments))
    asked += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": result}]
    after = litellm.completion(messages=asked, tools=[TOOL], **named)
    structured = litellm.completion(messages=HELLO, response_format=Answer, **named)
    vectors = litellm.embedding(input=["a", "b"], **named)
    pieces = 0
    endless = litellm.completion(messages=HELLO, stream=True, **(named | {"model": f"openai/{ENDLESS}"}))
    for _ in endless:
        pieces += 1
        if pieces == PIECES:
            break
    endless.completion_stream.close()
    response = litellm.responses(input="hello", **named)
    found = {
        "whole": whole.choices[0].message.content,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in streamed),
        "cities": cities,
        "after": after.choices[0].message.content,
        "structured": [Answer.model_validate_json(structured.choices[0].message.content).number],
        "embeddings": [len(each["embedding"]) for each in vectors.data],
        "failed": failed(lambda: litellm.completion(messages=HELLO, **(named | {"model": f"openai/{NOBODYS}"}))),
        "pieces": pieces,
        "responses": [response.output[0].content[0].text],
    }
    print(json.dumps(found))


main(sys.argv[1])
