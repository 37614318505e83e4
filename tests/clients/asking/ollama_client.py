"""Ollama's own client."""

import json
import sys

import ollama
from common import ENDLESS, MODEL, NOBODYS, PIECES, Answer, cities, failed, weather

HELLO = [{"role": "user", "content": "hello"}]


def main(url: str) -> None:
    client = ollama.Client(host=url)
    asked = [{"role": "user", "content": "weather please"}]
    message = client.chat(MODEL, asked, tools=[weather]).message
    for call in message.tool_calls or ():
        asked += [message, {"role": "tool", "content": weather(**call.function.arguments), "tool_name": "weather"}]
    structured = client.chat(MODEL, HELLO, format=Answer.model_json_schema()).message.content
    pieces = 0
    endless = client.chat(ENDLESS, HELLO, stream=True)
    for _ in endless:
        pieces += 1
        if pieces == PIECES:
            break
    endless.close()
    listed = [each.model for each in client.list().models]
    found = {
        "whole": client.chat(MODEL, HELLO).message.content,
        "streamed": "".join(each.message.content for each in client.chat(MODEL, HELLO, stream=True)),
        "cities": cities,
        "after": client.chat(MODEL, asked, tools=[weather]).message.content,
        "structured": [Answer.model_validate_json(structured).number],
        "embeddings": [len(each) for each in client.embed(MODEL, ["a", "b"]).embeddings],
        "failed": failed(lambda: client.chat(NOBODYS, HELLO)),
        "pieces": pieces,
        "models": [listed, client.show(MODEL).capabilities],
    }
    print(json.dumps(found))


main(sys.argv[1])
