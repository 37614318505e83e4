"""Tasks whose answer is one JSON object for the engine: rerank, tokens, sound and images."""
