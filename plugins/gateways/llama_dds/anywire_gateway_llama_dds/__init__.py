"""Gateway of Anywire for clients of the llama.cpp DDS service. The wire contract is ``idl/LlamaDDS.idl``."""

from anywire_gateway_llama_dds.config import LlamaDdsGatewayConfig
from anywire_gateway_llama_dds.gateway import LlamaDdsGateway

__all__ = ["LlamaDdsGateway", "LlamaDdsGatewayConfig"]
