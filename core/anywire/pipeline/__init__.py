"""The pipeline: admit → queue → choose → send → stream back.

Plugins do not import it: their contracts stand beside it.
"""
