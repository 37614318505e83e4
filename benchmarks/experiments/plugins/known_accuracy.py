"""An engine that answers exercises of the kind ``parity`` right with a known chance, to be deliberated with: what comes
of it can then be computed.

Whether a member is right about a number depends on the number and the member's seed alone. As a judge it gives the most
points to a proposal that says what it would say itself, else the fewest. So a wrong answer, which is the same for all
who are wrong, and a right one are each preferred by those who gave it, and the majority's answer wins.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, ClassVar

import msgspec
import pydantic

from anywire.engine import Delta, Engine, EngineStatus
from anywire.errors import InvalidRequest
from anywire.hookspecs import hookimpl
from anywire.messages import TaskRequest
from anywire.offers import Offer

MODEL = "known-accuracy"
_ASKED = re.compile(r"Is (\d+) an even number\?")
_PROPOSED = re.compile(r"<proposal>\s*(yes|no)\b")


class KnownAccuracyConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    accuracy: float = pydantic.Field(0.6, ge=0, le=1, description="Chance that an answer is right.")


def is_right(number: int, seed: int, accuracy: float) -> bool:
    """Whether the member with that seed is right about that number."""
    drawn = hashlib.sha256(f"{number}/{seed}".encode()).digest()[:8]
    return int.from_bytes(drawn, "big") / 2**64 < accuracy


def answer_of(number: int, seed: int, accuracy: float) -> str:
    """What that member says of it: yes, it is even, or no."""
    return "yes" if (number % 2 == 0) == is_right(number, seed, accuracy) else "no"


class KnownAccuracy(Engine):
    name: ClassVar[str] = "known_accuracy"
    Config = KnownAccuracyConfig
    config: KnownAccuracyConfig

    async def start(self, changed: Callable[[], None]) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Holds nothing."""

    def status(self) -> EngineStatus:
        return EngineStatus("ready", (Offer(MODEL, features={"json": True}),))

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta, None]:
        body: dict[str, Any] = msgspec.json.decode(task.body)
        said = "\n".join(str(each.get("content", "")) for each in body["messages"])
        asked = _ASKED.search(said)
        own = answer_of(int(asked[1]), int(body.get("seed", 0)), self.config.accuracy) if asked else "hello"
        text = _points(body, said, own) if "response_format" in body else own
        usage = {"prompt_tokens": len(said) // 4, "completion_tokens": len(text) // 4 + 1}
        yield Delta(text, "", "stop", msgspec.json.encode(usage | {"total_tokens": sum(usage.values())}).decode())


def _points(body: Mapping[str, Any], said: str, own: str) -> str:
    """As many as the schema allows for a proposal that says the same."""
    try:
        criteria: dict[str, Any] = body["response_format"]["json_schema"]["schema"]["properties"]
        proposed = _PROPOSED.search(said)
        choose = max if proposed is not None and proposed[1] == own else min
        return msgspec.json.encode({name: choose(each["enum"]) for name, each in criteria.items()}).decode()
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"response_format: expected the points of a deliberation's judge: {error!r}") from error


@hookimpl
def anywire_register(kind: str) -> Mapping[str, type] | None:
    return {KnownAccuracy.name: KnownAccuracy} if kind == "engines" else None
