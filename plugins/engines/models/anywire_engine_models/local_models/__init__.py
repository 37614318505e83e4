"""Local models for a program of one's own, without orchestrator and agents: `LocalModels`.

| module | |
|---|---|
| `models` | `LocalModels`: start, stop, chat, look |
| `chat` | a chat request, and its answer piece by piece |
| `changes` | changes of models, one after the other |
| `usage` | what a server uses of processor and memory |
"""

from __future__ import annotations

from anywire.event_bus import Missed, Reset
from anywire_engine_models.host.model_log import LogLine
from anywire_engine_models.local_models.changes import Changes
from anywire_engine_models.local_models.chat import ChatPiece
from anywire_engine_models.local_models.models import LocalModels
from anywire_engine_models.local_models.usage import ServerUsage

__all__ = ["Changes", "ChatPiece", "LocalModels", "LogLine", "Missed", "Reset", "ServerUsage"]
