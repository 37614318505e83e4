"""The roles as a library: an orchestrator, an agent, a client, and how each is run.

Command line, experiments, launchers and tests run them through here. Only this package and `anywire.testing` import
`anywire.pipeline`.
"""
