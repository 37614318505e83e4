"""Agents that are started while tasks wait, and ended when they are not needed any more."""
