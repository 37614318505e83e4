"""Anthropic's client, at the gateway's Messages API."""

import json
import sys

from anthropic import Anthropic
from common import ENDLESS, MODEL, NOBODYS, PIECES, Answer, cities, failed, weather

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def main(url: str) -> None:
    client = Anthropic(base_url=url, api_key="none", max_retries=0)
    named = {"model": MODEL, "max_tokens": 50}
    whole = client.messages.create(messages=HELLO, **named)
    with client.messages.stream(messages=HELLO, **named) as stream:
        streamed = "".join(stream.text_stream)
        reason = stream.get_final_message().stop_reason
    asked = [{"role": "user", "content": "weather please"}]
    called = client.messages.create(messages=asked, tools=[TOOL], **named)
    use = called.content[-1]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": weather(**use.input)}
    asked += [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    after = client.messages.create(messages=asked, tools=[TOOL], **named)
    parsed = client.messages.parse(messages=HELLO, output_format=Answer, **named)
    pieces = 0
    with client.messages.stream(messages=HELLO, **(named | {"model": ENDLESS})) as endless:
        for _ in endless.text_stream:
            pieces += 1
            if pieces == PIECES:
                break
    found = {
        "whole": whole.content[0].text,
        "streamed": streamed,
        "reasons": [whole.stop_reason, reason, called.stop_reason, after.stop_reason],
        "cities": cities,
        "after": after.content[0].text,
        "structured": [parsed.parsed_output.number],
        "tokens": client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens,
        "models": sorted(each.id for each in client.models.list()),
        "failed": failed(lambda: client.messages.create(messages=HELLO, **(named | {"model": NOBODYS}))),
        "pieces": pieces,
    }
    print(json.dumps(found))


main(sys.argv[1])
