"""The error of a command whose agent answers nonsense; apart, since a command line needs it when it runs alone."""

from __future__ import annotations

from anywire.errors import AnywireError


class NotUnderstood(AnywireError):
    """The agent answered with what the command does not understand."""

    code = "not_understood"
    remedy = "Use the same version of Anywire for the command and the agent."
