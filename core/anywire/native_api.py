"""APIs beside OpenAI's chats that the server behind an engine speaks itself.

A gateway that answers such an API makes a chat of each request, and its answer of what the chat gives. Where every
agent of a model offers the feature ``api:NAME`` for it, the gateway leaves the request as it came instead: the body of
the task, whose kind stays ``chat``, is that of the API with one member more, `MEMBER`, which names the endpoint. It is
a need that only an offer has which says so (`anywire.offers.Offer.lacks`), so no other engine ever gets such a body.

The engine sends the body without that member to its server, and answers with what the server says: each delta's
``extra`` is one event of the API, or of a whole answer all of it; ``text``, ``finish_reason`` and ``usage`` are beside
it as in a chat, so that all that counts answers counts these. Events that say nothing of the answer (pings, the end of
the stream) are left out. The answer is that of one agent: it is not resumed by another.

A client may name parts of the API that it wants beyond the usual (the header ``anthropic-beta``): they stand in the
member `BETAS`, which the engine takes out likewise and sends as that header.

| endpoint | need | a whole answer | events |
|---|---|---|---|
| ``messages`` | ``api:messages`` | a message of Anthropic's API | its events but ``ping`` and ``message_stop`` |
| ``messages/count_tokens`` | ``api:messages`` | ``{"input_tokens": 12}`` | |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from anywire.offers import API_NEED

MEMBER = "anywire_api"
"""The member of a body that names the endpoint. Clients may not send it."""
BETAS = "anywire_betas"
"""The member that names parts of the API, separated by commas. Clients may not send it either."""
BETAS_HEADER = "anthropic-beta"
MESSAGES = "messages"
COUNT_TOKENS = "messages/count_tokens"

NativeApi = Literal["messages"]
"""APIs that a server may speak."""

NEEDS = {MESSAGES: f"{API_NEED}messages", COUNT_TOKENS: f"{API_NEED}messages"}
"""What an endpoint needs of an offer."""

_SPACE = " \t\r\n"
_BEGIN = f'{{"{MEMBER}":"'
_MAX_CHARS = 64
"""Of the name of an endpoint."""
_BETAS = re.compile(r"[A-Za-z0-9._:, -]{1,2048}")


def api_features(apis: Iterable[NativeApi]) -> dict[str, bool]:
    """The features of an offer whose server speaks these."""
    return {f"{API_NEED}{each}": True for each in apis}


def are_betas(text: object) -> bool:
    """Whether ``text`` can be the value of `BETAS_HEADER`."""
    return isinstance(text, str) and _BETAS.fullmatch(text) is not None


def marked(body: str, endpoint: str, betas: str = "") -> str:
    """The body of a task, from the JSON object that a client sent to ``endpoint`` with ``betas``, which `are_betas`
    knows as such if they are not empty. The object has a member, and neither `MEMBER` nor `BETAS`."""
    named = f'"{BETAS}":"{betas}",' if betas else ""
    return f'{_BEGIN}{endpoint}",{named}{body.lstrip(_SPACE).removeprefix("{")}'


def endpoint_of(body: str) -> str:
    """The endpoint that the body of a task is for, as `marked` has written it; empty for a body of this API."""
    if not body.startswith(_BEGIN):
        return ""
    found = body[len(_BEGIN) : len(_BEGIN) + _MAX_CHARS].partition('"')[0]
    return found if found in NEEDS else ""
