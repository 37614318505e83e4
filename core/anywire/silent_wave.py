"""Sound that is none: a WAV file for probes and for engines without a model."""

from __future__ import annotations

import io
import wave

RATE = 8000
"""Samples of 16 bits in a second, of one channel."""


def silent_wave(seconds: float) -> bytes:
    """A WAV file of so much silence."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(2 * int(seconds * RATE)))
    return held.getvalue()
