"""Pydantic AI: agents with tools and structured output, over chats and over responses."""

import asyncio
import json
import sys

from common import ENDLESS, MODEL, NOBODYS, PIECES, Answer, cities, weather
from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.embeddings import Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


async def main(url: str) -> None:
    provider = OpenAIProvider(openai_client=AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
    model = OpenAIChatModel(MODEL, provider=provider)
    plain = Agent(model)
    whole = await plain.run("hello")
    async with plain.run_stream("hello") as stream:
        streamed = "".join([piece async for piece in stream.stream_text(delta=True, debounce_by=None)])
    after = await Agent(model, tools=[weather]).run("weather please")
    by_tool = await Agent(model, output_type=Answer).run("hello")
    by_schema = await Agent(model, output_type=NativeOutput(Answer)).run("hello")
    pieces = 0
    async with Agent(OpenAIChatModel(ENDLESS, provider=provider)).run_stream("hello") as endless:
        texts = endless.stream_text(delta=True, debounce_by=None)
        async for _ in texts:
            pieces += 1
            if pieces == PIECES:
                break
        await texts.aclose()
        await endless.cancel()
    try:
        await Agent(OpenAIChatModel(NOBODYS, provider=provider)).run("hello")
    except ModelHTTPError as error:
        failed = {"type": type(error).__name__, "status": error.status_code}
    vectors = await Embedder(OpenAIEmbeddingModel(MODEL, provider=provider)).embed_documents(["a", "b"])
    response = await Agent(OpenAIResponsesModel(MODEL, provider=provider)).run("hello")
    found = {
        "whole": whole.output,
        "streamed": streamed,
        "cities": cities,
        "after": after.output,
        "structured": [by_tool.output.number, by_schema.output.number],
        "embeddings": [len(each) for each in vectors.embeddings],
        "failed": failed,
        "pieces": pieces,
        "responses": [response.output],
    }
    print(json.dumps(found))


asyncio.run(main(sys.argv[1]))
