"""What a client wants done, as whoever speaks with it hands it to the pipeline."""

from __future__ import annotations

import msgspec

from anywire.messages import Kind


class Submission(msgspec.Struct, frozen=True):
    """A client's task as a gateway hands it over. ``body`` is OpenAI JSON text, validated by the gateway as far
    as its protocol goes. ``deadline_s`` 0 means the pipeline's default."""

    kind: Kind
    model: str
    body: str
    stream: bool = False
    priority: int = 0
    deadline_s: float = 0.0
    trace: str = ""
    hops: int = 0
