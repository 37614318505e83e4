"""Models in a program of one's own: `LocalModels`, without an orchestrator."""
