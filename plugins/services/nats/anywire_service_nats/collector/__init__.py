"""Counts the answers that agents of other orchestrators publish, and tells when a task is complete."""
