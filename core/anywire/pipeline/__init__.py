"""The pipeline: admit → queue → choose → send → stream back.

Its packages, each of which imports only those before it: ``tasks``, ``health``, ``fleet``, ``observation``, ``queue``,
``services``, ``attempts``, ``orders``, ``intake``. `anywire.pipeline.orchestrator` puts them together.

Plugins do not import it: their contracts stand beside it.
"""
