"""What all of these clients are asked to do. They run in an environment of their own, which has no package of this
project, get the gateway's address, and print what they have found as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

MODEL, ENDLESS, NOBODYS = "synthetic", "endless", "nobodys"
"""Models: one with known answers, one whose answer never ends, one that is not there."""
PIECES = 3
"""Pieces of the endless answer after which a client goes away."""

cities: list[str] = []
"""The cities that `weather` was called with."""


class Answer(BaseModel):
    """A number."""

    number: int


def weather(city: str) -> str:
    """The weather of a city."""
    cities.append(city)
    return "sunny"


def failed(work: Callable[[], Any]) -> dict[str, Any]:
    """How the client tells that ``work`` has failed."""
    try:
        work()
    except Exception as error:
        return {"type": type(error).__name__, "status": getattr(error, "status_code", None)}
    return {"type": None, "status": None}
