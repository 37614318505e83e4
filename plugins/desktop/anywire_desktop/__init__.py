"""A bridge between a desktop app and local models."""
