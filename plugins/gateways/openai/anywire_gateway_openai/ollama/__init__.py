"""Ollama's API: its requests as chats, completions and embeddings for the engine, and the answers in its form."""
