"""How errors look to clients of Ollama's API: a message and nothing else."""

from __future__ import annotations

import msgspec

from anywire.errors import AnywireError
from anywire_gateway_openai.errors import ErrorForm, printable_text
from anywire_gateway_openai.sse import one_line

_encode = msgspec.json.Encoder().encode


class OllamaErrorForm(ErrorForm):
    def body(self, error: AnywireError) -> bytes:
        return _encode({"error": printable_text(error.message) or "internal error"})


OLLAMA_FORM = OllamaErrorForm()


def error_line(error: AnywireError) -> bytes:
    """The line that ends a stream that cannot go on."""
    return one_line(OLLAMA_FORM.body(error)) + b"\n"
