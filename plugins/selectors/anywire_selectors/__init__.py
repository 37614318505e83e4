"""Selectors: which of the agents that could take a task gets it."""
