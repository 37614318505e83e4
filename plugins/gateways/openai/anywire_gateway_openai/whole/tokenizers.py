"""Whether the tokens of a model can be counted by an agent now, and the task that counts those of a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anywire.caller import Caller
from anywire.context import Context
from anywire.errors import StreamCorrupted
from anywire.messages import COMMON_KINDS, Chunk
from anywire_gateway_openai.whole.answer import read_object
from anywire_gateway_openai.whole.request import Object


def is_tokenized(context: Context, caller: Caller, model: str) -> bool:
    """Whether an agent that has ``model`` loaded turns texts into its tokens. None is loaded for that."""
    capable = {view.agent_id: view.info.capabilities for view in context.agents()}
    return any(
        offer.state == "ready" and "tokenize" in (offer.kinds or capable.get(who, COMMON_KINDS))
        for who, offer in context.offers(caller).get(model, ())
    )


def counting(chat: Mapping[str, Any], model: str) -> Object:
    """The body of a task of the kind ``tokenize`` for the prompt of a chat."""
    body = {name: chat[name] for name in ("messages", "tools", "chat_template_kwargs") if name in chat}
    return {"model": model, **body}


def token_count(chunk: Chunk) -> int:
    """The count that answers a task of the kind ``tokenize``. Raises `EngineFailed` and `StreamCorrupted`."""
    count = read_object(chunk, "tokenize").get("count")
    if type(count) is not int or count < 0:
        raise StreamCorrupted("the agent sent no count of tokens", phase="streaming")
    return count
