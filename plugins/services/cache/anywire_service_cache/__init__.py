"""Answers that were given before, and answers from documents: two services.

They are `anywire_service_cache.service.Cache` and `anywire_service_cache.retrieval.service.Retrieval`. This file
imports nothing: the command line stays quick.
"""
