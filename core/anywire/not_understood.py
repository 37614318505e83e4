"""The error of nonsensical answers; apart, since a command line needs it when it runs alone."""

from __future__ import annotations

from anywire.errors import AnywireError


class NotUnderstood(AnywireError):
    """The other end answered with what this one does not understand."""

    code = "not_understood"
    remedy = "Use the same version of Anywire at both ends."
