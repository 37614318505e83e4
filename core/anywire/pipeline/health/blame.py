"""Whom an attempt that failed speaks ill of: its agent, the link it was sent over, the model it asked, or nobody.

An error that concerns the model alone, as its agent says, counts against the model there, and says nothing of the agent
and its other models. Errors that are the request's, refusals and cancels never count. The loss of an agent is one
failure, however many attempts it takes along; the loss of one of several links is one of the link.
"""

from __future__ import annotations

from typing import NamedTuple

from anywire.errors import AgentLost, AnywireError, Blamed


class Blame(NamedTuple):
    """``whom`` the failure counts against, empty for nobody. ``is_loss``: the agent or link was lost, with all attempts
    that had been sent to it. ``is_from_below``: it quarantines nobody."""

    whom: Blamed
    is_loss: bool = False
    is_from_below: bool = False


def blame_for(error: AnywireError, model: str, is_blameless: bool, is_linked: bool, is_from_below: bool) -> Blame:
    """What ``error``, with which an attempt for ``model`` ended, counts against. ``model`` is empty where the attempt
    asked for none. ``is_blameless``: an operator caused it. ``is_linked``: the agent is there over another link.
    ``is_from_below``: the error arose below the agent, which is an orchestrator."""
    if is_blameless:
        return Blame("")
    blames = error.blames
    if blames == "model" and model:
        return Blame("model")
    if blames and is_from_below:
        return Blame("agent", is_from_below=True)
    if isinstance(error, AgentLost):
        return Blame("link" if is_linked else "agent", is_loss=True)
    return Blame("" if blames == "model" else blames)
