"""LlamaIndex, with the packages for servers that are like OpenAI's."""

import json
import sys

from common import ENDLESS, MODEL, NOBODYS, PIECES, Answer, cities, failed, weather
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike


def main(url: str) -> None:
    reach = {"api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
    able = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 4096}
    model = OpenAILike(model=MODEL, **reach, **able)
    hello = [ChatMessage(role="user", content="hello")]
    tool = FunctionTool.from_defaults(weather)
    asked = ChatMessage(role="user", content="weather please")
    calling = model.chat_with_tools([tool], user_msg=asked)
    call = model.get_tool_calls_from_response(calling)[0]
    result = ChatMessage(
        role="tool", content=str(tool.call(**call.tool_kwargs)), additional_kwargs={"tool_call_id": call.tool_id}
    )
    vectors = OpenAILikeEmbedding(model_name=MODEL, **reach).get_text_embedding_batch(["a", "b"])
    pieces = 0
    endless = OpenAILike(model=ENDLESS, **reach, **able).stream_chat(hello)
    for _ in endless:
        pieces += 1
        if pieces == PIECES:
            break
    endless.close()
    found = {
        "whole": model.chat(hello).message.content,
        "streamed": "".join(chunk.delta or "" for chunk in model.stream_chat(hello)),
        "cities": cities,
        "after": model.chat([asked, calling.message, result]).message.content,
        "structured": [model.structured_predict(Answer, PromptTemplate("hello")).number],
        "embeddings": [len(each) for each in vectors],
        "failed": failed(lambda: OpenAILike(model=NOBODYS, **reach, **able).chat(hello)),
        "pieces": pieces,
    }
    print(json.dumps(found))


main(sys.argv[1])
