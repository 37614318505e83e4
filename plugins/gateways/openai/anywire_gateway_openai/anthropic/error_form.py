"""How errors look to clients of Anthropic's API: its JSON, its types and its statuses."""

from __future__ import annotations

import msgspec

from anywire.errors import AnywireError
from anywire_gateway_openai.anthropic.messages import Object
from anywire_gateway_openai.errors import ErrorForm, error_code, printable_text, status_of
from anywire_gateway_openai.openapi.answer_types import MessageError

_STATUS = {502: 500, 503: 529}
"""Statuses that this API has others for: 529 says that it has too much to do."""
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Types of errors by their status here; of others ``invalid_request_error`` below 500, and ``api_error``."""

TOO_LONG = "prompt is too long"
"""What agents look for in an error before they shorten a conversation: this API has no code for it."""

_encode = msgspec.json.Encoder().encode


class AnthropicErrorForm(ErrorForm):
    """What this API has no member for stands in ``details``: the code, the member of the request at fault, where the
    error arose, and what the engine said besides."""

    id_header = "request-id"
    told_as = MessageError

    def status(self, error: AnywireError) -> int:
        status = status_of(error)
        return _STATUS.get(status, status)

    def body(self, error: AnywireError) -> bytes:
        status = self.status(error)
        known = {"error_code": error_code(error), "param": error.param, "origin": error.origin}
        details = {name: printable_text(value) for name, value in known.items() if value}
        told: Object = {
            "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error"),
            "message": printable_text(_message(error)),
        }
        try:
            return _encode({"type": "error", "error": {**told, "details": {**error.members, **details}}})
        except (TypeError, ValueError, RecursionError):
            return _encode({"type": "error", "error": {**told, "details": details}})  # members that are no JSON


def _message(error: AnywireError) -> str:
    if error_code(error) != "context_length_exceeded" or TOO_LONG in error.message.lower():
        return error.message
    return f"{TOO_LONG}: {error.message}"


ANTHROPIC_FORM = AnthropicErrorForm()
