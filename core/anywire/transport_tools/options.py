"""The options that every transport has."""

from __future__ import annotations

import pydantic

from anywire.transport import BUFFER_BYTES, MAX_MESSAGE_BYTES

MOST_MESSAGE_BYTES = 2**30
"""What ``max_message_bytes`` may be at most."""


class BoundedOptions(pydantic.BaseModel):
    """Base of a transport's ``Config``: the two bounds of the contract, with its defaults."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True)

    max_message_bytes: int = pydantic.Field(
        default=MAX_MESSAGE_BYTES,
        ge=1024,
        le=MOST_MESSAGE_BYTES,
        description="Bytes of the largest payload of a message, before encoding.",
    )
    buffer_bytes: int = pydantic.Field(
        default=BUFFER_BYTES, ge=1024, le=2**32, description="Bytes that may wait for one peer, as they are sent."
    )

    def bounds(self) -> dict[str, str]:
        """Both, as `Transport.effective_settings` must tell them."""
        return {"max_message_bytes": str(self.max_message_bytes), "buffer_bytes": str(self.buffer_bytes)}
