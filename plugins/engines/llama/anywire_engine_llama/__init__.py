"""The engine ``llama``: one model in a llama.cpp server of its own."""

from anywire_engine_llama.config import LlamaConfig
from anywire_engine_llama.engine import LlamaEngine

__all__ = ["LlamaConfig", "LlamaEngine"]
