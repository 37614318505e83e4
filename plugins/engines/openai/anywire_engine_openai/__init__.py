"""The engine ``openai``: any OpenAI-compatible HTTP server."""

from anywire_engine_openai.config import OpenAIConfig
from anywire_engine_openai.engine import OpenAIEngine

__all__ = ["OpenAIConfig", "OpenAIEngine"]
