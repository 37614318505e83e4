"""Routes for the models of one agent, beside it, on loopback.

| route | answer |
|---|---|
| ``GET /v1/models`` | all models with their states, memory and devices |
| ``POST /v1/models`` | adds a model to the registry; the body is its entry |
| ``POST /v1/models/import`` | imports models; the body has ``kind`` and ``path`` |
| ``GET /v1/models/{id}`` | one model's status |
| ``POST /v1/models/{id}/start`` | its status once it runs; as events, each change until then |
| ``POST /v1/models/{id}/stop`` | its status once it is stopped |
| ``POST /v1/models/{id}/unload`` | the same, but only where nothing uses it |
| ``POST /v1/models/{id}/pin`` | its status; the body may say ``{"pinned": false}`` |
| ``GET /v1/models/{id}/logs`` | its newest lines, or those ``after`` an id; with ``?follow=1`` as events that resume |
| ``GET /v1/events`` | changes of all models as events, resumable |
| ``POST /v1/chat/completions`` | OpenAI's |
| ``POST /v1/commands/{name}`` | a command of the engine, as the orchestrator's gateway answers one for an agent |

Each needs the token of `anywire_engine_models.local_api.records`. Errors are JSON in OpenAI's form.
"""
