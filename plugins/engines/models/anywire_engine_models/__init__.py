"""Local models as processes with one owner."""
