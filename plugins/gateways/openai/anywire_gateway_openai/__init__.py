"""The OpenAI HTTP API as a gateway of Anywire: chat completions, completions and embeddings, plain and streamed."""

from anywire_gateway_openai.gateway import OpenAIGateway, OpenAIGatewayConfig

__all__ = ["OpenAIGateway", "OpenAIGatewayConfig"]
