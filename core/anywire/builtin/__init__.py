"""Plugins that come with the core. They have no privileges: each is found by its entry point like any other."""
