"""Asks the gateway at argv[1] as users of the OpenAI Agents SDK do, and prints what it got as JSON.

It runs in an environment of its own, which has no package of this project.
"""

import asyncio
import json
import sys

from agents import (
    Agent,
    OpenAIConversationsSession,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import APIStatusError, AsyncOpenAI
from pydantic import BaseModel

told = []


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    told.append(city)
    return "sunny"


class Answer(BaseModel):
    number: int


async def main(url: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    set_default_openai_client(client, use_for_tracing=False)
    agent = Agent(name="a", instructions="Be brief", model="synthetic", tools=[weather])
    called = await Runner.run(agent, "weather please")
    further = await Runner.run(agent, "and?", previous_response_id=called.last_response_id)
    session = OpenAIConversationsSession(openai_client=client)
    for text in ("hello", "weather again"):
        await Runner.run(agent, text, session=session)
    conversation = await client.conversations.create()
    await Runner.run(agent, "weather please", conversation_id=conversation.id)
    streamed = Runner.run_streamed(agent, "weather please")
    events = [event.type async for event in streamed.stream_events()]
    structured = await Runner.run(Agent(name="b", model="synthetic", output_type=Answer), "hello")
    failed = None
    try:
        await Runner.run(Agent(name="c", model="nobodys"), "hello")
    except APIStatusError as error:
        failed = {"type": type(error).__name__, "status": error.status_code}
    found = {
        "called": [type(each).__name__ for each in called.new_items],
        "inputs": [each.usage.input_tokens for each in (*called.raw_responses, *further.raw_responses)],
        "session": [item.get("type", "message") for item in await session.get_items()],
        "conversation": [item.type async for item in client.conversations.items.list(conversation.id, order="asc")],
        "events": len(events),
        "texts": [called.final_output, streamed.final_output],
        "told": told,
        "structured": structured.final_output.number,
        "failed": failed,
    }
    await session.clear_session()
    print(json.dumps(found))


asyncio.run(main(sys.argv[1]))
