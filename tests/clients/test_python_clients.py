"""Clients in Python ask the gateway as their users do: chats, streams, tools, structured output, embeddings, errors.
What they leave is cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.clients.asked_client import found_by
from tests.clients.known_engine import WORDS, known_engine
from tests.patience import PATIENCE
from tests.responses.conversing import conversing

HERE = Path(__file__).parent
PYTHONS = {"llama_index_client": HERE / ".venv-llama-index" / "bin" / "python"}
USUAL = HERE / ".venv" / "bin" / "python"
CLIENTS = (
    "openai_python",
    "langchain_client",
    "llama_index_client",
    "litellm_client",
    "pydantic_ai_client",
    "ollama_client",
)
"""By the script that asks; what each is and what it cannot do: docs/reference/compatibility.md."""
WITHOUT_RESPONSES = ("llama_index_client", "ollama_client")
NOT_FOUND = {
    "langchain_client": "OpenAIModelNotFoundError",
    "pydantic_ai_client": "ModelNotFoundError",
    "ollama_client": "ResponseError",
}
"""What a client calls the error of a model that is not there, where it is not as OpenAI's calls it."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("client", CLIENTS)
async def test_everything_a_user_of_it_asks_for(tmp_path: Path, client: str) -> None:
    python = PYTHONS.get(client, USUAL)
    if not python.exists():
        pytest.skip(f"missing: the environment of {client} (tests/clients/install.sh)")
    engine = known_engine()
    async with conversing(tmp_path, engine, timeout=PATIENCE * 3) as at:
        found = await found_by(str(python), str(HERE / "asking" / f"{client}.py"), at.served.url)
        await asyncio.wait_for(engine.cancelled.wait(), PATIENCE)
    assert found["whole"] == found["streamed"]
    assert len(found["whole"].split()) == WORDS
    assert len(found["cities"]) == 1, "the tool was called once"
    assert len(found["after"].split()) == WORDS, "and the answer came after it"
    assert found["structured"]
    assert all(isinstance(each, int) for each in found["structured"])
    assert len(found["embeddings"]) == 2
    assert found["embeddings"][0] == found["embeddings"][1] > 1
    assert found["failed"] == {"type": NOT_FOUND.get(client, "NotFoundError"), "status": 404}
    assert found["pieces"] >= 3
    if client not in WITHOUT_RESPONSES:
        assert len(found["responses"][0].split()) == WORDS
    if client == "openai_python":
        assert found["responses"][1:] == ["response.completed", True]
        assert found["models"] == [["chat", "completion", "embedding"]]
    if client == "ollama_client":
        assert found["models"] == [["endless:latest", "synthetic:latest"], ["completion", "tools", "embedding"]]
