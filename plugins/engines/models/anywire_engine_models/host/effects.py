"""What `Residency` wants done, in this order. The owner of the models does it."""

from __future__ import annotations

import msgspec

from anywire.errors import AnywireError
from anywire_engine_models.host.hosted import HostedModel
from anywire_engine_models.host.status import ModelChanged, ModelStatus

Ticket = int
"""Stands for a caller who waits, or for a request under way."""


class Launch(msgspec.Struct, frozen=True):
    """Start a server of this model."""

    model: HostedModel


class End(msgspec.Struct, frozen=True):
    """End the server of this model, or its start."""

    name: str


class Grant(msgspec.Struct, frozen=True):
    """The caller may use the server of this model."""

    ticket: Ticket
    name: str


class Answer(msgspec.Struct, frozen=True):
    """The caller gets the status of the model it asked for."""

    ticket: Ticket
    status: ModelStatus


class Fail(msgspec.Struct, frozen=True):
    """The caller gets this error."""

    ticket: Ticket
    error: AnywireError


class Tell(msgspec.Struct, frozen=True):
    """The caller is told what it waits for."""

    ticket: Ticket
    detail: str


class Forget(msgspec.Struct, frozen=True):
    """This model is no longer there, and nothing of it is left."""

    name: str


Effect = Launch | End | Grant | Answer | Fail | Tell | Forget | ModelChanged
