"""Anywire: one orchestration pipeline for LLM agents, over any transport."""
