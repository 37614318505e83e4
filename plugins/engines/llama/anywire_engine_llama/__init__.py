"""The engine ``llama``: llama.cpp as a supervised child process."""

from anywire_engine_llama.config import LlamaConfig
from anywire_engine_llama.engine import LlamaEngine

__all__ = ["LlamaConfig", "LlamaEngine"]
