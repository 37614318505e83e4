"""Anthropic's Messages API: translation by pure functions, and what answers its requests."""
