"""Engine of Anywire: a server of the llama.cpp DDS service. The wire contract is ``idl/LlamaDDS.idl``."""

from anywire_engine_llama_dds.config import LlamaDdsEngineConfig
from anywire_engine_llama_dds.engine import LlamaDdsEngine

__all__ = ["LlamaDdsEngine", "LlamaDdsEngineConfig"]
