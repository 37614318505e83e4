"""OpenAI's Responses API: translation by pure functions, and what answers its requests."""
