"""Answers from documents, when no model can answer: the service ``retrieval``.

A folder is read into passages. A question finds those that are closest to it: by their embeddings where an agent makes
them, else by their words. This file imports nothing.
"""
