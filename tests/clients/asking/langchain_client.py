"""LangChain, with the package `langchain-openai`: chats and responses, tools, structured output, embeddings."""

import json
import sys

from common import ENDLESS, MODEL, NOBODYS, PIECES, Answer, cities, failed, weather
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def main(url: str) -> None:
    reach = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    model = ChatOpenAI(model=MODEL, **reach)
    able = tool(weather)
    bound = model.bind_tools([able])
    asked = [HumanMessage("weather please")]
    asked.append(bound.invoke(asked))
    asked.append(able.invoke(asked[-1].tool_calls[0]))
    # Without that option it sends tokens, counted by a file that it fetches from elsewhere.
    embeddings = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False, **reach)
    pieces = 0
    endless = ChatOpenAI(model=ENDLESS, **reach).stream("hello")
    for _ in endless:
        pieces += 1
        if pieces == PIECES:
            break
    endless.close()
    response = ChatOpenAI(model=MODEL, use_responses_api=True, **reach).invoke("hello")
    found = {
        "whole": model.invoke("hello").content,
        "streamed": "".join(chunk.content for chunk in model.stream("hello")),
        "cities": cities,
        "after": bound.invoke(asked).content,
        "structured": [
            model.with_structured_output(Answer, method=method).invoke("hello").number
            for method in ("json_schema", "function_calling")
        ],
        "embeddings": [len(each) for each in embeddings.embed_documents(["a", "b"])],
        "failed": failed(lambda: ChatOpenAI(model=NOBODYS, **reach).invoke("hello")),
        "pieces": pieces,
        "responses": [response.text if isinstance(response.text, str) else response.text()],
    }
    print(json.dumps(found))


main(sys.argv[1])
